"""The learned part: corrections of the step, from features of how training goes.

Two small networks see the same features: ratios without units that any step leaves behind,
averaged over the last steps, so that one set of weights serves any network and any loss. Their
outputs are bounded factors of what the untrained optimizer computes. With weights of zero all
factors are 1: learning starts there, and this is the control that it has to beat.
"""

import math
import sys
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from mlhf.optimizers.learned.kinds import KINDS
from mlhf.optimizers.protocol import State
from mlhf.optimizers.running_mean import retention

FEATURES = 10
_DAMPING_RANGE = 2.3  # of a logarithm: from a tenth to ten times
_STEP_RANGES = (2.3, 0.7, 0.35)
_DECAY = 0.9  # of the features' running means
_LONG_DECAY = 0.99
_FLOOR = 1e-12  # of the first loss: lower ones count as that
_TINY = sys.float_info.min


class FactorNetwork(nn.Module):
    """From features (F,) to factors, in Python's numbers: calls into torch would take longer."""

    def factors(self, features: Sequence[float]) -> list[float]:
        """Return the factors."""
        raise NotImplementedError


class DampingNetwork(FactorNetwork):
    """From features (F,) to the damping's factor for each kind of parameters, (6,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(FEATURES))
        self.kinds = nn.Parameter(torch.zeros(len(KINDS)))

    def factors(self, features: Sequence[float]) -> list[float]:
        common = _dot(self.weight.tolist(), features)
        return [_factor(_DAMPING_RANGE, common + kind) for kind in self.kinds.tolist()]


class StepNetwork(FactorNetwork):
    """From features (F,) to three factors.

    They multiply G's diagonal in the preconditioner, the whole step, and the coefficient of
    the last step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, FEATURES))

    def factors(self, features: Sequence[float]) -> list[float]:
        rows = zip(_STEP_RANGES, self.weight.tolist(), strict=True)
        return [_factor(bound, _dot(row, features)) for bound, row in rows]


def _dot(a: Sequence[float], b: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(a, b, strict=True))


def _factor(bound: float, x: float) -> float:
    """Return a factor whose logarithm is x while small, and at most the bound."""
    return math.exp(bound * math.tanh(x))


class StepStats(NamedTuple):
    """What a step measured; None where it did not.

    Attributes:
        loss: ℓ on the batch.
        alpha: α, the coefficient of the preconditioned gradient.
        momentum: μ, the coefficient of the last step.
        residual_step: ⟨b, d'⟩ / ⟨d', Gd'⟩: how much further the last step d' should have gone,
            by a batch it did not see; negative where it went too far.
        damping_fraction: The damping's share of the curvature along the step.
        diagonal_error: log of the curvature along the step over what G's diagonal in the basis
            predicts.
        predicted_reduction: By how much the quadratic model says that the loss falls.
    """

    loss: float
    alpha: float
    momentum: float
    residual_step: float | None = None
    damping_fraction: float | None = None
    diagonal_error: float | None = None
    predicted_reduction: float | None = None

    def values(self, lowest: float) -> list[float | None]:
        """Return the bounded values whose running means are kept; the log loss comes last.

        Args:
            lowest: Above 0; a loss below counts as this.
        """
        loss = max(self.loss, lowest)  # NaN stays
        predicted = self.predicted_reduction
        reduction = None if predicted is None else predicted / loss
        return [
            math.log(_clamp(self.alpha, 1e-3, 1e3)),
            _clamp(self.momentum, -2, 2),
            None if self.residual_step is None else _clamp(self.residual_step, -3, 3),
            None if self.damping_fraction is None else _clamp(self.damping_fraction, 0, 1),
            None if self.diagonal_error is None else _clamp(self.diagonal_error, -5, 5),
            None if reduction is None else math.log10(_clamp(reduction, 1e-6, 10)),
            math.log(loss),
        ]


class FeatureEMA:
    """Running means of what steps measured, from which the features are computed."""

    def __init__(self) -> None:
        self._steps = 0
        self._short: list[float] | None = None
        self._long = 0.0  # of the log loss
        self._first = 0.0  # the first log loss
        self._lowest = _TINY

    def add(self, stats: StepStats) -> None:
        """Update each mean whose value was measured."""
        if self._short is None:
            self._lowest = max(_FLOOR * abs(stats.loss), _TINY)
        values = stats.values(self._lowest)
        self._steps += 1
        if self._short is None:
            self._short = [0.0 if v is None else v for v in values]
            self._long = self._first = self._short[-1]
            return
        short, long = (1 - retention(decay, self._steps) for decay in (_DECAY, _LONG_DECAY))
        self._short = [
            old if new is None else old + short * (new - old)
            for old, new in zip(self._short, values, strict=True)
        ]
        loss = values[-1]
        assert loss is not None
        self._long += long * (loss - self._long)

    def loss_reduction(self) -> float:
        """Return the first loss over the (geometric) running mean of the last ones."""
        if self._short is None:
            return 1.0
        return math.exp(min(self._first - self._short[-1], 700.0))

    def features(self) -> list[float]:
        """Return the features, (10,), each in −1 … 1; before the first step 1, then zeros.

        They are 1; the number of steps; then, of the running means: the log loss relative to
        the first, and its trend; log α; μ; the residual step; the damping's share of the
        curvature; the diagonal's error; and the predicted reduction relative to the loss.
        """
        if self._short is None:
            return [1.0] + [0.0] * (FEATURES - 1)
        alpha, momentum, residual_step, damping, diagonal, reduction, loss = self._short
        return [
            1.0,
            math.tanh(math.log1p(self._steps / 100)),
            math.tanh((loss - self._first) / 3),
            math.tanh(5 * (loss - self._long)),
            math.tanh(alpha),
            math.tanh(2 * momentum - 1),
            math.tanh(residual_step),
            2 * damping - 1,
            math.tanh(diagonal / 2),
            math.tanh((reduction + 2) / 1.5),
        ]

    def state_dict(self) -> State:
        return {
            "steps": self._steps,
            "short": self._short,
            "long": self._long,
            "first": self._first,
            "lowest": self._lowest,
        }

    def load_state_dict(self, state: State) -> None:
        short = state["short"]
        self._steps = int(state["steps"])
        self._short = None if short is None else [float(v) for v in short]
        self._long, self._first = float(state["long"]), float(state["first"])
        self._lowest = float(state.get("lowest", 1e-12))  # of older checkpoints


def _clamp(value: float, low: float, high: float) -> float:
    """Return the value, or the bound it is beyond; NaN stays."""
    return low if value < low else high if value > high else value
