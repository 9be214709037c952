"""Steps to the minimum of the quadratic model over all directions, where residuals allow it.

Residuals of a differential equation have no noise: a batch's own minimum is one of all points,
and a step is as good as its system's solution. Where the rows of the Jacobian fit in memory, that
costs three gradients and a factor of a matrix of the smaller of both sides squared, however many
directions there are. So nothing is left for a basis, a preconditioner or a last step to do, and
the damping may be the same in all directions: λI, with λ as small as steps allow. Beyond that
memory the subspace is what it is elsewhere.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.protocol import Loss
from mlhf.optimizers.gauss_newton.damped_steps import DampedSteps
from mlhf.optimizers.gauss_newton.memory_plan import MEMORY_BYTES
from mlhf.optimizers.gauss_newton.rows import ChosenRows
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.step_guard import check


class WholeSpace(DampedSteps):
    """Solves for all directions at once, and looks at the loss after the step.

    Args:
        model: The residuals.
        loss: ℓ of them.
        parameters: θ.
        memory_bytes: The bound on rows and matrices.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        parameters: Sequence[Tensor],
        memory_bytes: int = MEMORY_BYTES,
    ) -> None:
        super().__init__(parameters)
        self._rows = ChosenRows(model, loss, self._parameters, memory_bytes)

    def step(
        self,
        x: Any,
        y: Any,
        evaluate: Callable[[], Tensor],
        factor: Callable[[int], float],
    ) -> StepResult | None:
        """Move θ, or return None where the rows do not fit, or there are none.

        Args:
            x: The batch's points.
            y: Their targets, if the loss has any.
            evaluate: Returns the batch's loss at the parameters as they are then.
            factor: From the number of rows to the factor of the step.

        Raises:
            NotFinite: where loss or gradient is not finite.
        """
        jacobian = self._rows.get(x, y)
        if jacobian is None:
            return None
        try:
            loss, system = self._rows.system(jacobian, x, y, self.weight_decay)
            with torch.no_grad():
                check(loss, {"gradient": [torch.dot(system.gradient, system.gradient)]})
                self.lr = factor(system.rows)
                length = self._search(system, evaluate, loss)
                return StepResult(loss, {"damping": self._scale(system), "step_length": length})
        finally:
            jacobian.clear()

    def state_dict(self) -> State:
        return {"damping": self._damping}

    def load_state_dict(self, state: State) -> None:
        self._damping = None if state["damping"] is None else float(state["damping"])
