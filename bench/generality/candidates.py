"""Candidates for a damping that is right without a task's help, and what each of them looks at.

After a step d, the next batch says how much further it should have gone, ⟨b', d⟩ / ⟨d, G'd⟩ (the
residual step: negative where it went too far), and what the curvature along it is for a batch
that d was not made from. Solves measure both in any case.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from unittest import mock

from mlhf.optimizers.mlhf.kronecker.controller import StepNetwork
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF
from mlhf.optimizers.mlhf.kronecker.quadratic_model import QuadraticModel
from mlhf.optimizers.mlhf.kronecker.solver import Solver
from mlhf.optimizers.mlhf.kronecker.step_extension import StepExtension
from mlhf.optimizers.mlhf.kronecker.subspace import Array, bilinear

_MOST_DAMPING, _MOST_LENGTH = math.log(100.0), math.log(30.0)


@dataclass(frozen=True)
class Candidate:
    """How the damping and the step's length are adapted, at each solve.

    Attributes:
        plateau: The damping's factor while the log loss has not fallen by ``held``; it goes to 1
            as that falls by ``fall`` more.
        held, fall: By how much.
        after: From which step on.
        warm_up: Over how many steps the damping falls from ten times what it is, in place of all
            that, and steps grow to their length.
        overshoot: Whether steps that go too far raise the damping.
        undershoot: Whether steps that should have gone further raise it.
        length: Whether steps are lengthened where they should have gone further, and what was
            gained so is taken back where they go too far, ``back`` times as fast.
        own_length: Whether steps are as long as their own batch says, as they were before
            ``step_extension.py``.
        low, high: The residual step that counts as too far and as too short.
        rate: The change of a logarithm at a solve.
    """

    plateau: float = 1.0
    held: float = 0.0
    fall: float = 0.1
    after: int = 0
    warm_up: int = 0
    overshoot: bool = False
    undershoot: bool = False
    length: bool = False
    own_length: bool = False
    back: float = 1.0
    low: float = -0.6
    high: float = 0.6
    rate: float = 0.15


CANDIDATES = {
    "as it is": Candidate(),
    "plateau": Candidate(plateau=10.0),
    "plateau, longer": Candidate(plateau=10.0, fall=0.3),
    "plateau, held": Candidate(plateau=10.0, held=0.1, fall=0.3),
    "plateau, late": Candidate(plateau=30.0, held=0.1, fall=0.3, after=25),
    "warm-up": Candidate(warm_up=50),
    "overshoot": Candidate(overshoot=True),
    "length": Candidate(length=True),
    "length, taken back faster": Candidate(length=True, low=-0.3, back=4.0),
    "both": Candidate(overshoot=True, undershoot=True),
    "own length": Candidate(own_length=True),
}


class Seen(NamedTuple):
    """What a solve measured of the step before: its number, the residual step, the ratio of
    that step's curvature for its own batch to that for the next one, and α."""

    step: int
    residual_step: float
    overfit: float
    alpha: float


@dataclass
class Trial:
    """A candidate's state over a run.

    Attributes:
        damping, length: Logarithms of what the damping and the step are multiplied by.
        seen: What the solves measured.
    """

    candidate: Candidate
    damping: float = 0.0
    length: float = 0.0
    seen: list[Seen] = field(default_factory=list)
    _mean: float = 0.0
    _own: float | None = None
    _applied: float = 1.0
    _steps: int = 0
    _base: float | None = None

    def record(self, model: QuadraticModel, alpha: float, residual_step: float | None) -> None:
        """Look at a solve, and adapt."""
        if residual_step is not None and self._own is not None:  # a solve, over q and d'
            fresh = float(model.gram[1, 1]) / self._applied**2
            if fresh > 0:
                self._adapt(min(max(residual_step, -2.0), 3.0))
                self.seen.append(Seen(self._steps, residual_step, self._own / fresh, alpha))
        c: Array = model.coefficients
        self._own = bilinear(c, model.gram, c)

    def _adapt(self, residual_step: float) -> None:
        candidate, weight = self.candidate, max(0.2, 1 / (1 + len(self.seen)))
        self._mean += weight * (residual_step - self._mean)
        far, short = self._mean < candidate.low, self._mean > candidate.high
        if (candidate.overshoot and far) or (candidate.undershoot and short):
            self.damping = min(self.damping + candidate.rate, _MOST_DAMPING)
        if candidate.length:
            change = candidate.rate * (short - candidate.back * far)
            self.length = min(max(self.length + change, 0.0), _MOST_LENGTH)

    def step(self, optimizer: KroneckerMLHF) -> None:
        """Set the damping of the next step."""
        if self._base is None:
            self._base = optimizer.damping
        self._applied = optimizer._extension.applied
        if self.candidate.plateau != 1 and self._steps >= self.candidate.after:
            fallen = math.log(optimizer._features.loss_reduction())
            left = min(max(1 - (fallen - self.candidate.held) / self.candidate.fall, 0.0), 1.0)
            self.damping = left * math.log(self.candidate.plateau)
        if self.candidate.warm_up:
            left = max(1 - self._steps / self.candidate.warm_up, 0.0)
            self.damping, self.length = left * math.log(10.0), -left * math.log(10.0)
        optimizer.damping = self._base * math.exp(self.damping)
        self._steps += 1


@contextmanager
def trying(candidate: Candidate) -> Iterator[Trial]:
    """Have the next optimizer that is made adapt as the candidate does."""
    trial = Trial(candidate)
    step, record, plain = KroneckerMLHF._step, Solver._record, StepNetwork.factors

    def stepping(self: KroneckerMLHF, *args: Any, **kwargs: Any) -> Any:
        trial.step(self)
        return step(self, *args, **kwargs)

    def recording(
        self: Solver, loss: float, model: QuadraticModel, c: Array, residual: float | None
    ) -> None:
        record(self, loss, model, c, residual)
        trial.record(model, float(c[0]), residual)

    def factors(self: StepNetwork, features: Sequence[float]) -> list[float]:
        on_diagonal, on_step, on_momentum = plain(self, features)
        return [on_diagonal, on_step * math.exp(trial.length), on_momentum]

    patches: list[tuple[type, str, Callable[..., Any]]] = [
        (KroneckerMLHF, "_step", stepping),
        (Solver, "_record", recording),
        (StepNetwork, "factors", factors),
    ]
    if candidate.own_length:
        patches.append((StepExtension, "see", lambda self, model: None))
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(mock.patch.object(*each))
        yield trial
