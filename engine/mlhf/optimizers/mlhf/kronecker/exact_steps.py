"""When steps minimise over the whole space: for residuals, and where each has all samples."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

from mlhf.curvature.protocol import Loss
from mlhf.curvature.residuals import Residuals
from mlhf.optimizers.mlhf.kronecker.repeated_batch import RepeatedBatch, exact_rows
from mlhf.optimizers.mlhf.kronecker.whole_space import WholeSpace
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.reevaluate import BatchReevaluator

# Where each step has all samples: the step that is the first of these, and the most that a
# system may take. One costs as much as ten to thirty other steps.
_FIRST, _FLOPS, _BYTES = 10, 5e9, 1 << 26


class ExactSteps:
    """Takes such steps where a batch allows it.

    Args:
        model: The network.
        loss: ℓ.
        parameters: θ.
        memory_bytes: The bound on rows and matrices.
        autocast: Whether passes are under autocast, in whose precision nothing is exact.

    Attributes:
        of_residuals: Whether the model is ``Residuals``: then every batch does, whose rows fit.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: Sequence[Tensor],
        memory_bytes: int,
        autocast: bool = False,
    ) -> None:
        self._model, self._loss, self._parameters = model, loss, list(parameters)
        self.of_residuals = isinstance(model, Residuals)
        self._bytes = memory_bytes if self.of_residuals else min(memory_bytes, _BYTES)
        self._repeated = RepeatedBatch()
        self._repeated.over = self.of_residuals or autocast
        self._whole = self._new() if self.of_residuals and not autocast else None

    def wanted(self, x: Any, y: Any, steps: int) -> bool:
        """Return whether a step may be exact, after so many others."""
        if self.of_residuals:
            return True
        if not self._repeated.see(x, y) or steps < _FIRST:
            return False
        if self._whole is None:
            rows = exact_rows(self._model, self._loss, x, y, self._parameters[0].device)
            count = sum(p.numel() for p in self._parameters)
            if rows is None or rows * count * min(rows, count) > _FLOPS:
                self._repeated.over = True
                return False
            self._whole = self._new()
        return True

    def step(
        self,
        x: Any,
        y: Any,
        reevaluator: BatchReevaluator,
        lr: float | list[float],
        decay: float | list[float],
        fraction: Callable[[int], float],
    ) -> StepResult | None:
        """Take the step; None where the rows that it needs do not fit, or there are none.

        Args:
            x: The input.
            y: The target.
            reevaluator: Made before this step.
            lr: The learning rate; None is returned where groups differ in it.
            decay: The weight decay; the same.
            fraction: From the number of rows to the batch's size relative to the usual one.
        """
        result = None
        if self._whole is not None and not isinstance(lr, list) and not isinstance(decay, list):
            self._whole.weight_decay = decay
            evaluate = partial(reevaluator.loss, self._loss, x, y)
            factor = (lambda rows: lr * fraction(rows)) if self.of_residuals else (lambda _: lr)
            result = self._whole.step(x, y, evaluate, factor)
        if not self.of_residuals:
            if result is None:
                self._repeated.over = True  # there is no way to its rows
            else:
                self._repeated.see_loss(float(result.loss))
        return result

    @property
    def state(self) -> list[object]:
        """The objects whose attributes are its state."""
        return [self, self._repeated, *([] if self._whole is None else [self._whole])]

    def state_dict(self) -> State:
        whole = None if self._whole is None else self._whole.state_dict()
        return {"repeated": self._repeated.state_dict(), "whole": whole}

    def load_state_dict(self, state: State) -> None:
        """Restore what ``state_dict`` returned; states of before have less."""
        if not self.of_residuals:
            self._repeated.load_state_dict(state.get("repeated"))
            self._whole = None
        if state.get("whole") is not None:
            self._whole = self._whole or self._new()
            self._whole.load_state_dict(state["whole"])

    def _new(self) -> WholeSpace:
        return WholeSpace(self._model, self._loss, self._parameters, self._bytes)
