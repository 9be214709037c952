"""The learned part: from how training goes to corrections of the step.

Two small networks see the same features, which have no units: ratios that any step leaves
behind, averaged over the last steps, so that one set of weights serves any network and any
loss. What they return multiplies the untrained form, in bounds. With weights of zero nothing
is changed: that is where learning starts, and the control it has to beat.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from mlhf.optimizers.learned.kinds import KINDS
from mlhf.optimizers.protocol import State

FEATURES = 10
_DAMPING_RANGE = 2.3  # of a logarithm: from a tenth to ten times
_STEP_RANGES = (2.3, 0.7, 0.35)
_MEMORY = 0.9  # of the running means
_LONG_MEMORY = 0.99
_TINY = 1e-12


class DampingNetwork(nn.Module):
    """From features (F,) to the logarithm of a factor of the damping for each kind, (6,)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(FEATURES))
        self.kinds = nn.Parameter(torch.zeros(len(KINDS)))

    def forward(self, features: Tensor) -> Tensor:
        return _DAMPING_RANGE * torch.tanh(self.kinds + self.weight @ features)


class StepNetwork(nn.Module):
    """From features (F,) to logarithms of three factors, (3,).

    Those of G's diagonal in the preconditioner, of the whole step, and of its part along the
    step before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3, FEATURES))

    def forward(self, features: Tensor) -> Tensor:
        return features.new_tensor(_STEP_RANGES) * torch.tanh(self.weight @ features)


@dataclass(frozen=True)
class Seen:
    """What a step leaves behind; None where it was not measured.

    Attributes:
        loss: ℓ on the batch.
        fresh: α, the coefficient of the preconditioned gradient.
        momentum: μ, that of the last step.
        left: ⟨b, d'⟩ / ⟨d', Gd'⟩: how much further the last step d' should have gone, by a
            batch it did not see; negative where it went too far.
        damped: The damping's part of the curvature along the step.
        diagonal: log of the curvature along it over what G's diagonal in the basis says.
        predicted: How far the quadratic model says the step lowers the loss.
    """

    loss: float
    fresh: float
    momentum: float
    left: float | None = None
    damped: float | None = None
    diagonal: float | None = None
    predicted: float | None = None

    def values(self) -> list[float | None]:
        """Return what running means are kept of, within bounds; the log loss comes last."""
        loss = max(self.loss, _TINY)  # NaN stays
        lowers = None if self.predicted is None else max(self.predicted, _TINY) / loss
        return [
            math.log(_within(self.fresh, 1e-3, 1e3)),
            _within(self.momentum, -2, 2),
            None if self.left is None else _within(self.left, -3, 3),
            None if self.damped is None else _within(self.damped, 0, 1),
            None if self.diagonal is None else _within(self.diagonal, -5, 5),
            None if lowers is None else math.log10(_within(lowers, 1e-6, 10)),
            math.log(loss),
        ]


class Memory:
    """Running means of what steps leave behind: the state of the learned part."""

    def __init__(self) -> None:
        self._steps = 0
        self._short: list[float] | None = None
        self._long = 0.0  # of the log loss
        self._first = 0.0  # log loss

    def add(self, seen: Seen) -> None:
        """Move each mean whose value was measured."""
        values = seen.values()
        self._steps += 1
        if self._short is None:
            self._short = [0.0 if v is None else v for v in values]
            self._long = self._first = self._short[-1]
            return
        short, long = (1 - min(m, 1 - 1 / self._steps) for m in (_MEMORY, _LONG_MEMORY))
        self._short = [
            old if new is None else old + short * (new - old)
            for old, new in zip(self._short, values, strict=True)
        ]
        loss = values[-1]
        assert loss is not None
        self._long += long * (loss - self._long)

    def fallen(self) -> float:
        """Return by what factor the loss, in the mean of the last steps, is below the first."""
        if self._short is None:
            return 1.0
        return math.exp(min(self._first - self._short[-1], 700.0))

    def features(self) -> list[float]:
        """Return the features, (10,), each of about unit size; zeros but the first at first.

        1; how many steps, twice (log, squashed at 30 and at 1000); and of the running means:
        the loss since the beginning, and its trend; log α; μ; what is left; the damping's
        part; the log of the diagonal's error, of the predicted decrease over the loss.
        """
        if self._short is None:
            return [1.0] + [0.0] * (FEATURES - 1)
        fresh, momentum, left, damped, diagonal, predicted, loss = self._short
        return [
            1.0,
            math.tanh(math.log1p(self._steps / 100)),
            math.tanh((loss - self._first) / 3),
            math.tanh(5 * (loss - self._long)),
            math.tanh(fresh),
            math.tanh(2 * momentum - 1),
            math.tanh(left),
            2 * damped - 1,
            math.tanh(diagonal / 2),
            math.tanh((predicted + 2) / 1.5),
        ]

    def state_dict(self) -> State:
        return {"steps": self._steps, "short": self._short, "long": self._long,
                "first": self._first}  # fmt: skip

    def load_state_dict(self, state: State) -> None:
        short = state["short"]
        self._steps = int(state["steps"])
        self._short = None if short is None else [float(v) for v in short]
        self._long, self._first = float(state["long"]), float(state["first"])


def _within(value: float, least: float, most: float) -> float:
    """Return the value, or the bound it is beyond; NaN stays."""
    return least if value < least else most if value > most else value
