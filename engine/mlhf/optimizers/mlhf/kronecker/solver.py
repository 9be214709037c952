"""When a step solves its quadratic model, and when it reuses what an earlier step found."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mlhf.curvature.protocol import FactoredCurvature
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.controller import FeatureEMA, StepStats
from mlhf.optimizers.mlhf.kronecker.damping import Damped
from mlhf.optimizers.mlhf.kronecker.quadratic_model import (
    Direction,
    QuadraticModel,
    combine,
    direction,
)
from mlhf.optimizers.mlhf.kronecker.subspace import Array
from mlhf.optimizers.protocol import State

LOW_LOSS = 10.0  # the loss is low once it has fallen by this factor
_OUTLIER = 1.5  # bᵀPb above this many times its mean: the batch is solved for in any case
_STALE = 4.0  # a mean α above this many times the newest solve's is out of date
_SOLVE_WEIGHT = 0.3  # of each solve in the mean of the coefficients, while the loss is high
_UNMEASURED = 2  # steps in a row, at most, once the loss is low
_ALPHA_WEIGHT = 0.3  # of a measured length in the mean that such steps take
_TINY = torch.finfo(torch.float32).tiny


class Solver:
    """Finds the coefficients of the preconditioned gradient and the last step.

    Between two solves, the ratio of the coefficients stays that of the last solve. The minimum
    is then along one line and takes one tangent pass. While the loss is high, steps between
    solves do not even measure that: they use the mean of the last solves' coefficients, since
    batches agree on how long a step may be, up to noise. Near interpolation a few samples
    dominate the curvature, and the loss would jump if nothing was measured for long. There each
    third step measures, and the two between have the mean length of those that did.

    Where a network is confidently wrong its softmax is flat. A batch's G then hardly sees the
    sample that dominates its gradient, and the minimum may lie many times too far away. But a
    loss that is never negative cannot fall by more than itself: a step of which the model
    predicts more is scaled down in proportion (as Polyak's step is bounded; Loizou et al.
    2021).

    Args:
        basis: The basis that vectors (n,) are in.
        features: Running means of what steps measure; each solve and measurement is added.
        iterations: How many preconditioned directions besides the last step.
        solve_every: Most steps from one solve to the next; fewer at first.
    """

    def __init__(
        self, basis: Basis, features: FeatureEMA, iterations: int, solve_every: int
    ) -> None:
        self._basis, self._features = basis, features
        self._iterations, self._solve_every = iterations, solve_every
        self._coefficients: Array | None = None  # of the preconditioned gradient and of d'
        self._reusable = False
        self._since_solve = 0  # steps
        self._mean_norm: float | None = None  # bᵀPb, averaged over the last steps
        self._seen_negative = False  # whether a loss was ever negative
        self._mean_alpha: float | None = None  # geometric, over the last steps that measured
        self._unmeasured = 0  # steps since the last of them, once the loss is low

    def solve(
        self,
        ggn: FactoredCurvature,
        b: Tensor,
        damped: Damped,
        first: Direction,
        last: Direction,
        penalty: Tensor | None,
        step: int,
        decays: Tensor | None = None,
    ) -> tuple[list[Direction], Array, QuadraticModel] | None:
        """Return directions, each one's coefficient in the step, and the model; None if not finite.

        Waits for the device, since numbers decide what is computed.

        Args:
            ggn: G.
            b: The gradient, (n,), in the basis.
            damped: The damping, and what is made of it.
            first: Pb.
            last: d'.
            penalty: What is minimised beside the loss, a scalar, if anything is.
            step: How many steps were taken before this one.
            decays: The weight decay of each flattened parameter, (n,), where it is not in s.
        """
        model = QuadraticModel(ggn, self._basis, b, damped.damping, self._basis.diagonal, decays)
        penalties = [] if penalty is None else [penalty]
        on_host = to_host([damped.products, ggn.loss, *penalties])
        if not all(map(math.isfinite, on_host)):
            return None
        norm, _, loss, *added = on_host
        objective = loss + sum(added)
        outlier = self._is_outlier(norm)
        self._seen_negative = self._seen_negative or loss < 0
        self._since_solve += 1
        due = self._since_solve >= interval(step, 3, self._solve_every) or not self._reusable
        loss_is_high = self._features.loss_reduction() < LOW_LOSS
        if self._coefficients is not None and not due and not outlier:
            coefficients = self._coefficients
            usual = None if loss_is_high else self._usual_alpha(norm, objective)
            if usual is not None:
                self._unmeasured += 1
                alpha, momentum = coefficients
                coefficients = np.array([usual, min(momentum * usual / alpha, 1.0)])
            if loss_is_high or usual is not None:
                self._features.add(StepStats(loss, *coefficients.tolist()))
            else:
                self._unmeasured = 0
                model.add(combine(coefficients, [first, last]))
                coefficients = coefficients * model.coefficients
                self._record(loss, model, coefficients, None)
                coefficients = coefficients * self._polyak_scale(objective, model)
                self._keep(coefficients)
            return [first, last], coefficients, model
        model.add(first, last)
        coefficients = model.coefficients
        if due:  # an outlier's coefficients are used for that batch only
            self._since_solve = 0
            bounded = coefficients * self._polyak_scale(objective, model)
            self._keep(bounded, _SOLVE_WEIGHT if loss_is_high else 1.0)
        residual_step = float(model.linear_term[1] / max(model.gram[1, 1], _TINY))
        for _ in range(self._iterations - 1):
            model.add(direction(self._basis, model.residual() / damped.diagonal))
        self._record(loss, model, coefficients, residual_step)
        coefficients = model.coefficients * self._polyak_scale(objective, model)
        return model.directions, coefficients, model

    def _usual_alpha(self, norm: float, objective: float) -> float | None:
        """Return α without a measurement; None where this step has to measure.

        A step of that length is expected to gain ½α⟨b, Pb⟩, which is bounded as a measured gain
        is.
        """
        if self._unmeasured >= _UNMEASURED or self._mean_alpha is None or not norm > 0:
            return None
        bound = math.inf if self._seen_negative else 2 * objective / norm
        return min(self._mean_alpha, bound)

    def _polyak_scale(self, objective: float, model: QuadraticModel) -> float:
        """Return the factor at which the predicted reduction is at most the objective.

        Args:
            objective: The loss, with its penalty.
            model: The model at its minimum.
        """
        predicted = model.predicted_reduction
        bounded = predicted > objective and not self._seen_negative
        return objective / predicted if bounded else 1.0

    def _keep(self, coefficients: Array, weight: float = 1.0) -> None:
        """Keep the coefficients for the next steps, if these may reuse them, and α in its mean.

        No later step may be many times as long as the newest solve found: where steps have to
        become short quickly, a mean would lag behind.

        Args:
            coefficients: α and μ.
            weight: Of these in the mean with those kept before.
        """
        self._reusable = reusable(*coefficients.tolist())
        before = coefficients if self._coefficients is None else self._coefficients
        kept = before + weight * (coefficients - before) if self._reusable else self._coefficients
        alpha = float(coefficients[0])
        if alpha > 0:
            mean = alpha if self._mean_alpha is None else self._mean_alpha
            self._mean_alpha = mean * (alpha / mean) ** _ALPHA_WEIGHT
        if kept is not None and 0 < _STALE * coefficients[0] < kept[0]:
            kept = np.array([coefficients[0], kept[1]])
        self._coefficients = kept

    def _is_outlier(self, norm: float) -> bool:
        """Whether bᵀPb is far above its running mean: old coefficients say nothing then."""
        if self._mean_norm is None:
            self._mean_norm = norm
        outlier = norm > _OUTLIER * self._mean_norm
        self._mean_norm += 0.1 * (norm - self._mean_norm)
        return outlier

    def _record(
        self,
        loss: float,
        model: QuadraticModel,
        coefficients: Array,
        residual_step: float | None,
    ) -> None:
        undamped, damped, predicted = model.curvatures()
        alpha, momentum = coefficients.tolist()
        self._features.add(
            StepStats(
                loss,
                alpha,
                momentum,
                residual_step,
                damping_fraction=1 - undamped / damped,
                # either may be infinite
                diagonal_error=math.log(undamped) - math.log(predicted),
                predicted_reduction=model.predicted_reduction,
            )
        )

    def state_dict(self) -> State:
        return {
            "parts": None if self._coefficients is None else self._coefficients.tolist(),
            "usable": self._reusable,
            "since": self._since_solve,
            "pull": self._mean_norm,
            "signed": self._seen_negative,
            "mean_alpha": self._mean_alpha,
            "unmeasured": self._unmeasured,
        }

    def load_state_dict(self, state: State) -> None:
        coefficients, norm = state["parts"], state["pull"]
        self._coefficients = None if coefficients is None else np.array(coefficients)
        self._reusable, self._since_solve = bool(state["usable"]), int(state["since"])
        self._mean_norm = None if norm is None else float(norm)
        self._seen_negative = bool(state["signed"])
        mean_alpha = state.get("mean_alpha")  # older states have neither
        self._mean_alpha = None if mean_alpha is None else float(mean_alpha)
        self._unmeasured = int(state.get("unmeasured", 0))


def to_host(numbers: Sequence[Tensor]) -> list[float]:
    """Return all numbers of a few small tensors; waits for the device once."""
    if all(t.is_cpu for t in numbers):
        return [number for t in numbers for number in t.reshape(-1).tolist()]
    found: list[float] = torch.cat([t.to(numbers[0]).reshape(-1) for t in numbers]).tolist()
    return found


def reusable(alpha: float, momentum: float) -> bool:
    """Whether later steps may reuse these coefficients.

    A coefficient of the last step outside 0 … 1 is right for one step only: reused again and
    again, it makes steps that grow.
    """
    return alpha > 0 and 0 <= momentum <= 1


def interval(step: int, divisor: int, most: int) -> int:
    """Return the steps until something is due again that is done ever less often.

    It is step / divisor, at least 1, at most ``most``.
    """
    return min(most, max(1, step // divisor))
