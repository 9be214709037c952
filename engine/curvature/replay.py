"""Running a forward pass again under the circumstances of its first time."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Replay:
    """Make one before a forward pass; that pass can then be run again.

    Args:
        model: The model: its buffers and its mode are part of the circumstances.
        device: Where its random draws are made, beside the CPU.
    """

    def __init__(self, model: nn.Module, device: torch.device) -> None:
        self._model = model
        self._cuda = device if device.type == "cuda" else None
        self._draws = self._random_state()
        self._buffers = [b.clone() for b in model.buffers()]
        self._modes = [m.training for m in model.modules()]

    @contextmanager
    def again(self) -> Iterator[None]:
        """Set buffers, modes and random state back; afterwards all are as they were."""
        draws, modes = self._random_state(), [m.training for m in self._model.modules()]
        buffers = [b.clone() for b in self._model.buffers()]
        self._set(self._draws, self._buffers, self._modes)
        try:
            yield
        finally:
            self._set(draws, buffers, modes)

    def _set(
        self, draws: tuple[Tensor, Tensor | None], buffers: list[Tensor], modes: list[bool]
    ) -> None:
        torch.set_rng_state(draws[0])
        if self._cuda is not None and draws[1] is not None:
            torch.cuda.set_rng_state(draws[1], self._cuda)
        for module, mode in zip(self._model.modules(), modes, strict=True):
            module.training = mode
        with torch.no_grad():
            for buffer, value in zip(self._model.buffers(), buffers, strict=True):
                buffer.copy_(value)

    def _random_state(self) -> tuple[Tensor, Tensor | None]:
        cuda = None if self._cuda is None else torch.cuda.get_rng_state(self._cuda)
        return torch.get_rng_state(), cuda
