"""Schedule-Free AdamW (Defazio et al. 2024), by its authors' library ``schedulefree``."""

from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained

# What it counts in its parameter groups.
_KEPT = ("k", "weight_sum", "lr_max")


class ScheduleFreeAdamW(FirstOrder):
    """Gradients are taken between the steps and their average; the average is the result.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        params: ``ScheduleFreeParams``.
    """

    def __init__(self, model: nn.Module, loss: Loss, params: Any) -> None:
        from schedulefree import AdamWScheduleFree

        inner = AdamWScheduleFree(
            trained(model),
            lr=params.lr,
            betas=(params.beta1, params.beta2),
            eps=params.eps,
            weight_decay=params.weight_decay,
        )
        super().__init__(model, loss, lambda _: [inner], _KEPT)
        self._inner = inner
        self._between: list[Tensor] | None = None  # where steps start from, while it is away
        self._inner.train()

    @torch.no_grad()
    def eval_mode(self) -> None:
        if self._between is None:
            self._between = [p.detach().clone() for p in trained(self.model)]
            self._inner.eval()

    @torch.no_grad()
    def train_mode(self) -> None:
        if self._between is not None:
            # The library would compute them back, to rounding; a copy is the same bit for bit.
            self._inner.train()
            torch._foreach_copy_(tuple(trained(self.model)), self._between)
            self._between = None
