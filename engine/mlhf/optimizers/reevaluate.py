"""The loss of a step's batch at other parameters, with the same random draws."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_pass import evaluated, forget_casts
from mlhf.curvature.forward_replay import ForwardReplay
from mlhf.curvature.microbatches import Microbatch, take_samples
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import loss_of


class BatchReevaluator:
    """Make one before a forward pass; it can then evaluate the loss under the same conditions.

    Those are the random state, the model's buffers, and its training or evaluation modes.

    Args:
        model: The model, in the mode it is trained in.
        device: Where its random numbers are drawn, beside the CPU.
        autocast: The dtype of the forward pass under autocast.
    """

    def __init__(
        self, model: nn.Module, device: torch.device, autocast: torch.dtype | None = None
    ) -> None:
        self._model = model
        self._device = device.type
        self._autocast = autocast
        self._replay = ForwardReplay(model, device)

    @torch.no_grad()
    def loss(
        self, loss: Loss, x: Any, y: Any, microbatches: Sequence[Microbatch] | None = None
    ) -> Tensor:
        """Return the loss of model(x), a scalar; buffers and random state stay as they are.

        Args:
            loss: As for ``GGN``.
            x: The input.
            y: The target.
            microbatches: How the batch was split in the first pass.
        """
        forget_casts()  # the parameters have changed
        cast = (
            nullcontext()
            if self._autocast is None
            else torch.autocast(self._device, dtype=self._autocast)
        )
        with self._replay.restored_state():
            if microbatches is None:
                with cast:
                    z = evaluated(self._model, x)
                return loss_of(loss, z, y)
            terms = []
            for microbatch in (m for m in microbatches if m.weight):
                with cast:
                    z = evaluated(self._model, take_samples(x, microbatch))
                terms.append(microbatch.weight * loss_of(loss, z, take_samples(y, microbatch)))
            return torch.stack(terms).sum()
