"""Steps that go further than their own batch says, where batches are small against the network.

A step made from few samples lies in the few directions in which these see the network, and has
there many times the curvature that other samples have. The exact minimum for the batch's own G is
then far too near. The next solve measures the same step's curvature on a batch that it was not
made from, in any case.
"""

import math

from mlhf.optimizers.mlhf.kronecker.quadratic_model import QuadraticModel
from mlhf.optimizers.mlhf.kronecker.subspace import bilinear
from mlhf.optimizers.protocol import State

_CREDIBLE = 100.0  # a ratio of curvatures up to which a batch's own minimum is trusted
_MOST = 30.0
_WEIGHT = 0.2  # of a solve in the running mean
_LARGEST = 50.0  # of a logarithm of a ratio


class StepExtension:
    """A factor of the step: the root of its curvature's ratio, own batch over next, beyond 100.

    The ratio is a running mean of its logarithm over solves. Both curvatures are those of a step
    as the solve found it, before any factor.

    Attributes:
        factor: It, from 1 to 30.
        applied: By how much the last step was multiplied in all, this factor included.
    """

    def __init__(self) -> None:
        self.factor = 1.0
        self._log_ratio = 0.0
        self._solves = 0  # that entered the mean
        self._own: float | None = None  # curvature of the last solve's step, for its own batch
        self.applied = 1.0

    def see(self, model: QuadraticModel) -> None:
        """Take in a model at its minimum; only those over the last step d' and others tell.

        Args:
            model: Its second direction is d'.
        """
        if len(model.directions) < 2:
            return
        c = model.coefficients
        on_next = float(model.gram[1, 1]) / self.applied**2
        if self._own is not None and self._own > 0 and on_next > 0:
            self._solves += 1
            log_ratio = math.log(self._own) - math.log(on_next)
            bounded = min(max(log_ratio, -_LARGEST), _LARGEST)
            self._log_ratio += max(_WEIGHT, 1 / self._solves) * (bounded - self._log_ratio)
            log_factor = 0.5 * (self._log_ratio - math.log(_CREDIBLE))
            self.factor = math.exp(min(max(log_factor, 0.0), math.log(_MOST)))
        self._own = bilinear(c, model.gram, c)

    def state_dict(self) -> State:
        return {
            "factor": self.factor,
            "log_ratio": self._log_ratio,
            "solves": self._solves,
            "own": self._own,
            "applied": self.applied,
        }

    def load_state_dict(self, state: State) -> None:
        self.factor = float(state["factor"])
        self._log_ratio, self._solves = float(state["log_ratio"]), int(state["solves"])
        self._own = None if state["own"] is None else float(state["own"])
        self.applied = float(state["applied"])
