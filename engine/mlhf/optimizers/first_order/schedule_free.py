"""Schedule-Free AdamW (Defazio et al. 2024), by its authors' library ``schedulefree``."""

import torch
from torch import Tensor, nn

from mlhf.core.optional import from_extra
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.params import ScheduleFreeParams
from mlhf.optimizers.protocol import State, StepResult

_GROUP_STATE = ("k", "weight_sum", "lr_max")


class ScheduleFreeAdamW(FirstOrder):
    """Takes gradients between the steps and their average; the average is the result.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        params: ``ScheduleFreeParams``.
    """

    def __init__(self, model: nn.Module, loss: Loss, params: ScheduleFreeParams) -> None:
        with from_extra("peers"):
            from schedulefree import AdamWScheduleFree

        inner = AdamWScheduleFree(
            trained(model),
            lr=params.lr,
            betas=(params.beta1, params.beta2),
            eps=params.eps,
            weight_decay=params.weight_decay,
        )
        super().__init__(model, loss, [inner], _GROUP_STATE, params.max_skipped_steps)
        self._schedule_free = inner
        self._train_weights: list[Tensor] | None = None  # while the average is in the model
        self._schedule_free.train()

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        """Take one step on the batch (x, y).

        Raises:
            CurvatureError: in ``eval_mode``.
        """
        self._refuse_eval_mode("a step")
        return super().step(x, y)

    def state_dict(self) -> State:
        """Return the state.

        Raises:
            CurvatureError: in ``eval_mode``: the library's state belongs to other weights.
        """
        self._refuse_eval_mode("a state")
        return super().state_dict()

    def _refuse_eval_mode(self, what: str) -> None:
        if self._train_weights is not None:
            raise CurvatureError(
                f"{what} in eval_mode would be wrong: the model holds the averaged weights. Call "
                "train_mode() before"
            )

    @torch.no_grad()
    def eval_mode(self) -> None:
        if self._train_weights is None:
            self._train_weights = [p.detach().clone() for p in trained(self.model)]
            self._schedule_free.eval()

    @torch.no_grad()
    def train_mode(self) -> None:
        if self._train_weights is not None:
            # The library would compute them, up to rounding; a copy is the same bit for bit.
            self._schedule_free.train()
            torch._foreach_copy_(tuple(trained(self.model)), self._train_weights)
            self._train_weights = None


def build(model: nn.Module, loss: Loss, params: ScheduleFreeParams, seed: int) -> ScheduleFreeAdamW:
    """Return ``schedule_free_adamw`` of the registry."""
    return ScheduleFreeAdamW(model, loss, params)
