"""First-order optimizers whose result is an average of the weights, not the last ones."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.protocol import Loss
from mlhf.optimizers.first_order.first_order import FirstOrder, trained
from mlhf.optimizers.protocol import State, StepResult


class AveragingOptimizer(torch.optim.Optimizer):
    """A torch optimizer that puts its average into the parameters, and takes it out."""

    def eval(self) -> None:
        """Put the average into the parameters."""

    def train(self) -> None:
        """Put the weights that steps start from back."""


class AveragedFirstOrder(FirstOrder):
    """One gradient a step; ``eval_mode`` puts the average of the weights into the model.

    Args:
        model: The model that is trained.
        loss: A loss's name, or a function (z, y) ↦ scalar.
        inner: What takes the steps and keeps the average.
        group_state: As for ``FirstOrder``.
        max_skipped_steps: As for ``StepGuard``.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        inner: AveragingOptimizer,
        group_state: Sequence[str] = (),
        max_skipped_steps: int = 10,
    ) -> None:
        super().__init__(model, loss, [inner], group_state, max_skipped_steps)
        self._averaging = inner
        self._train_weights: list[Tensor] | None = None  # while the average is in the model
        self._averaging.train()

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
            self._averaging.eval()

    @torch.no_grad()
    def train_mode(self) -> None:
        if self._train_weights is not None:
            # The library would compute them, up to rounding; a copy is the same bit for bit.
            self._averaging.train()
            torch._foreach_copy_(tuple(trained(self.model)), self._train_weights)
            self._train_weights = None
