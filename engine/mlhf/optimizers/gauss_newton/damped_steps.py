"""How far a Gauss-Newton step goes, and how damped: the loss after it decides both.

The length t is halved from 1 until the loss falls. Where it would be below ¼, c grows fourfold and
the same matrix is factorized again; where it is at least ½, the next step begins with a tenth of c.
So c falls as fast as steps allow: what it holds back are the small eigenvalues, in which the last
digits lie, and one that is too small costs another factor and three forward passes, no step.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.gauss_newton.iterative import IterativeSystem
from mlhf.optimizers.gauss_newton.systems import System

_ATTEMPTS = 16  # dampings of one step
_HALVINGS = 12  # of a gradient step, where no damping helps
_MOST = 1e3  # c
# c at first and at least, by whether numbers are double.
START = {True: 1e-11, False: 1e-5}
FLOOR = {True: 1e-13, False: 1e-7}
ITERATIVE_START = 1e-4  # where conjugate gradients solve


@dataclass(frozen=True)
class DampingRule:
    """How c follows the length of steps.

    Attributes:
        shortest: A step below it is not taken: c grows, and the system is solved again.
        long: After a step at least so long c falls.
        decrease: The factor by which it falls.
        increase: The factors by which it grows within one step; the last again and again.
    """

    shortest: float
    long: float
    decrease: float
    increase: tuple[float, ...]


LEAST_SQUARES = DampingRule(1 / 4, 1 / 2, 0.1, (4.0, 4.0, 10.0))
# A metric's quadratic model is not that of the loss: a full step minimises nothing.
NATURAL = DampingRule(1 / 16, 1 / 2, 0.5, (10.0,))


class DampedSteps:
    """Moves parameters by a damped Gauss-Newton system's solutions.

    Args:
        parameters: θ.
        lr: Factor of the step.
        weight_decay: L2 penalty, part of the objective that a step lowers.
        damping: c at first; by default 1e-11 in float64, 1e-5 in float32.
        rule: How c follows.
    """

    def __init__(
        self,
        parameters: Sequence[Tensor],
        lr: float = 1.0,
        weight_decay: float = 0.0,
        damping: float | None = None,
        rule: DampingRule = LEAST_SQUARES,
    ) -> None:
        self._parameters = list(parameters)
        self.lr, self.weight_decay = lr, weight_decay
        self._start, self._rule = damping, rule
        self._damping: float | None = None  # c

    def _scale(self, system: System) -> float:
        """Return c: where it stands, or where it starts."""
        if self._damping is not None:
            return self._damping
        if self._start is not None:
            return self._start
        double = system.gradient.dtype == torch.float64
        return max(START[double], ITERATIVE_START if isinstance(system, IterativeSystem) else 0.0)

    def _search(self, system: System, evaluate: Callable[[], Tensor], loss: Tensor) -> float:
        """Move θ, and adapt c; return the length, 0 where no step lowers the objective."""
        if self.lr == 0 or not bool(system.gradient.any()):
            return 0.0
        before = self._copy()
        first = float(loss) + self._penalty()
        rule = self._rule
        scale = self._scale(system)
        for attempt in range(_ATTEMPTS):
            direction = system.solve(scale * system.trace)
            length = 1.0
            while direction is not None and length >= rule.shortest:
                if self._move_if_lower(before, direction, length, evaluate, first):
                    if length >= rule.long:
                        floor = FLOOR[direction.dtype == torch.float64]
                        scale = max(rule.decrease * scale, min(scale, floor))
                    self._damping = scale
                    return length
                length /= 2
            growth = rule.increase[min(attempt, len(rule.increase) - 1)]
            scale = min(growth * scale, _MOST)
        return self._descend(system.gradient, before, evaluate, first)

    def _descend(
        self,
        gradient: Tensor,
        before: Sequence[Tensor],
        evaluate: Callable[[], Tensor],
        first: float,
    ) -> float:
        """Step along the gradient, from Polyak's length on: the matrix may be next to 0."""
        direction = gradient * (abs(first) / torch.dot(gradient, gradient))
        length = 1.0
        for _ in range(_HALVINGS):
            if self._move_if_lower(before, direction, length, evaluate, first):
                return length
            length /= 2
        return 0.0

    def _move_if_lower(
        self,
        before: Sequence[Tensor],
        direction: Tensor,
        length: float,
        evaluate: Callable[[], Tensor],
        first: float,
    ) -> bool:
        lower = self._value_at(before, direction, self.lr * length, evaluate) < first
        if lower:
            self._move(direction, self.lr * length)
        return lower

    def _value_at(
        self,
        before: Sequence[Tensor],
        direction: Tensor,
        factor: float,
        evaluate: Callable[[], Tensor],
    ) -> float:
        """Return the objective at θ − factor·d; θ is as it was afterwards."""
        step = unflatten(direction, self._parameters)
        # By ``data``: products at ``before`` stay valid, since that is restored.
        for p, old, d in zip(self._parameters, before, step, strict=True):
            p.data.copy_(old).add_(d, alpha=-factor)
        value = float(evaluate()) + self._penalty()
        for p, old in zip(self._parameters, before, strict=True):
            p.data.copy_(old)
        return value

    def _copy(self) -> list[Tensor]:
        return [p.detach().clone() for p in self._parameters]

    def _move(self, direction: Tensor, factor: float) -> None:
        step = unflatten(direction, self._parameters)
        torch._foreach_add_(self._parameters, step, alpha=-factor)

    def _penalty(self) -> float:
        if not self.weight_decay:
            return 0.0
        theta = flatten(self._parameters)
        return 0.5 * self.weight_decay * float(torch.dot(theta, theta))
