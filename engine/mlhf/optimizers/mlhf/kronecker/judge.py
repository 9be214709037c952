"""Damping that follows the loss after each step, where losses have no noise of labels.

The residuals of a differential equation can all be made small, so that a step that raises its
own batch's loss is a bad one. With every step looked at, the damping may fall until steps are
long, which noise would forbid. It costs a forward pass.
"""

import math

from mlhf.optimizers.protocol import State

_BOUNDS = (1e-12, 1e12)


class StepJudge:
    """A factor of the damping, by the gain ratio of the last steps.

    Attributes:
        factor: It.
    """

    def __init__(self) -> None:
        self.factor = 1.0

    def accepts(self, actual: float, predicted: float) -> bool:
        """Adapt to a step's actual and predicted reduction; return whether it is kept."""
        accepted = actual > 0
        ratio = actual / predicted if predicted > 0 else math.nan
        if not accepted:
            change = 4.0
        elif ratio > 0.75:
            change = 0.8
        elif ratio < 0.25:
            change = 2.0
        else:
            change = 1.0
        low, high = _BOUNDS
        self.factor = min(max(self.factor * change, low), high)
        return accepted

    def state_dict(self) -> State:
        return {"factor": self.factor}

    def load_state_dict(self, state: State) -> None:
        self.factor = float(state["factor"])
