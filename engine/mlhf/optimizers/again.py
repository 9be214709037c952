"""The loss of a step's batch at other parameters, under the same circumstances."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.microbatches import Microbatch, take_samples
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import loss_of


class Again:
    """Make one before a forward pass; it can then be run again with the same random draws.

    Args:
        model: The model, in the mode it is trained in.
        device: Where its random draws are made, beside the CPU.
        autocast: The forward pass's type under autocast.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, autocast: torch.dtype | None = None
    ) -> None:
        self._model = model
        self._device = device.type
        self._autocast = autocast
        self._replay = ForwardReplay(model, device)

    @torch.no_grad()
    def loss(self, loss: Loss, x: Any, y: Any, parts: Sequence[Microbatch] | None = None) -> Tensor:
        """Return the loss of model(x); neither buffers nor random state move by it.

        Args:
            loss: As for ``GGN``.
            x: The input.
            y: The target.
            parts: How the batch was cut in the first pass.
        """
        cast = (
            nullcontext()
            if self._autocast is None
            else torch.autocast(self._device, dtype=self._autocast)
        )
        with self._replay.restored_state():
            if parts is None:
                with cast:
                    z = self._model(x)
                return loss_of(loss, z, y)
            found = []
            for part in parts:
                with cast:
                    z = self._model(take_samples(x, part))
                found.append(part.weight * loss_of(loss, z, take_samples(y, part)))
            return torch.stack(found).sum()
