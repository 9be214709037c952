"""A model's buffers while its graph is used, which may run parts of the forward pass again."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from mlhf.curvature.switches import NOTHING


class UnmovedBuffers:
    """Keeps a model's buffers as they are where its graph recomputes activations.

    Activation checkpointing runs parts of the network again, for a walk of the graph many
    times, and each time batch norm would update its statistics.

    Args:
        model: The model. Only the buffers of modules in train mode are looked at.
    """

    def __init__(self, model: nn.Module) -> None:
        self._buffers = [
            buffer
            for module in model.modules()
            if module.training
            for buffer in module._buffers.values()
            if buffer is not None
        ]
        self._recomputes: bool | None = None if self._buffers else False

    def kept(self) -> AbstractContextManager[None]:
        """Put the buffers back after a use of the graph within.

        The first use has to be a backward pass through all of it.
        """
        if self._recomputes is False or torch._C._len_torch_dispatch_stack():  # traced
            return NOTHING
        return self._put_back()

    @contextmanager
    def _put_back(self) -> Iterator[None]:
        versions = [buffer._version for buffer in self._buffers]
        values = [buffer.clone() for buffer in self._buffers]
        try:
            yield
        finally:
            # Batch norm's kernel does not count its writes, but the layer counts batches.
            moved = versions != [buffer._version for buffer in self._buffers]
            if self._recomputes is None:
                self._recomputes = moved
            if moved:
                with torch.no_grad():
                    for buffer, value in zip(self._buffers, values, strict=True):
                        buffer.copy_(value)
