"""When a step solves its quadratic model, and when it makes do with what an earlier one found."""

import math

import numpy as np
import torch
from torch import Tensor

from mlhf.curvature.ggn import GGN
from mlhf.curvature.vectors import flatten
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.controller import Memory, Seen
from mlhf.optimizers.mlhf.kronecker.model import Direction, QuadraticModel, combined
from mlhf.optimizers.mlhf.kronecker.subspace import Numbers
from mlhf.optimizers.protocol import State

_HIGH = 10.0  # the loss, until it has fallen by this factor
_UNUSUAL = 1.5  # times its mean: a gradient whose step is measured in any case
_TINY = torch.finfo(torch.float32).tiny
_FAR = 4.0  # a solve's step shorter by this factor than the mean's: the mean is of the past
_FRESH = 0.3  # while it is high, the part of a solve in the mean of those so far


class Solver:
    """Finds how far to go along the preconditioned gradient and the last step.

    Between two solves their parts keep the ratio they had at the last one: the minimum is along
    one line, and takes one tangent pass. While the loss is high they do without, and take the
    mean of the last solves' parts: batches then agree on how long a step may be but for noise,
    where near interpolation a few samples rule the curvature and the loss would jump.

    Where a network is sure and wrong, its softmax is flat: a batch's G then hardly knows of the
    sample that its gradient is of, and the minimum may lie many times too far away. But a loss
    that is never negative has no more than itself to lose: a step that the model says lowers
    it by more is taken in proportion (as Polyak's step is bounded; Loizou et al. 2021).

    Args:
        basis: In which vectors are given, (n,).
        memory: Of what steps leave behind; it is added to.
        iterations: Preconditioned directions besides the last step.
        solve_every: Most steps from one solve to the next; at first fewer.
    """

    def __init__(self, basis: Basis, memory: Memory, iterations: int, solve_every: int) -> None:
        self._basis, self._memory = basis, memory
        self._iterations, self._solve_every = iterations, solve_every
        self._steps = 0
        self._parts: Numbers | None = None  # of the preconditioned gradient and of d'
        self._usable = False
        self._since = 0  # steps since they were found
        self._pull: float | None = None  # bᵀPb in the mean of the last steps
        self._signed = False  # whether a loss was negative

    def solve(
        self,
        ggn: GGN,
        b: Tensor,
        s: Tensor,
        inverse: Tensor,
        last: Direction,
        penalty: Tensor,
    ) -> tuple[list[Direction], Numbers]:
        """Return directions, and the parts of each in the step.

        Waits for the device: it decides by numbers what to do.

        Args:
            ggn: G.
            b: The gradient, (n,), in the basis as s and P.
            s: The damping, (n,).
            inverse: P, (n,).
            last: d'.
            penalty: What is minimised beside the loss, a scalar.
        """
        model = QuadraticModel(ggn, self._basis, b, s)
        q = self._both(inverse * b)
        numbers = [ggn.loss.to(b), torch.dot(q.turned, b), penalty]
        loss, pull, beside = torch.stack(numbers).tolist()
        stake = loss + beside
        unusual = self._unusual(pull)
        self._signed = self._signed or loss < 0
        most = interval(self._steps, 3, self._solve_every)
        self._since += 1
        self._steps += 1
        due = self._since >= most or not self._usable
        high = self._memory.fallen() < _HIGH
        if self._parts is not None and not due and not unusual:
            parts = self._parts
            if high:
                self._memory.add(Seen(loss, *parts.tolist()))
            else:
                model.add(combined(parts, [q, last]))
                parts = parts * model.parts
                self._remember(loss, model, parts, None)
                parts = parts * self._credible(stake, model)
                self._keep(parts)
            return [q, last], parts
        model.add(q, last)
        parts = model.parts
        if due:
            self._since = 0
            credible = parts * self._credible(stake, model)
            self._keep(credible, _FRESH if high else 1.0)  # an unusual batch's are for itself
        left = float(model.pull[1] / max(model.own[1, 1], _TINY))
        for _ in range(self._iterations - 1):
            model.add(self._both(inverse * model.residual()))
        self._remember(loss, model, parts, left)
        return model.directions, model.parts * self._credible(stake, model)

    def _credible(self, stake: float, model: QuadraticModel) -> float:
        """Return how much of the minimum to take: all, unless it promises more than there is.

        Args:
            stake: The loss, with its penalty.
        """
        promised = model.lowers
        return stake / promised if promised > stake and not self._signed else 1.0

    def _keep(self, parts: Numbers, weight: float = 1.0) -> None:
        """Keep the parts for the next steps, if those may do with them.

        But no step is to be many times as long as what was last found: where steps have to
        become short quickly, a mean would come too late.

        Args:
            weight: Of these in the mean with those kept before.
        """
        self._usable = repeatable(*parts.tolist())
        before = parts if self._parts is None else self._parts
        kept = before + weight * (parts - before) if self._usable else self._parts
        if kept is not None and 0 < _FAR * parts[0] < kept[0]:
            kept = np.array([parts[0], kept[1]])
        self._parts = kept

    def _unusual(self, pull: float) -> bool:
        """Whether bᵀPb is well above its mean over the last steps: nobody knows how far then."""
        if self._pull is None:
            self._pull = pull
        found = pull > _UNUSUAL * self._pull
        self._pull += 0.1 * (pull - self._pull)
        return found

    def _remember(
        self, loss: float, model: QuadraticModel, parts: Numbers, left: float | None
    ) -> None:
        own, damped, told = model.curvatures(self._basis.of_curvature())
        wrong = math.log(own) - math.log(told)  # either may be infinite
        fresh, momentum = parts.tolist()
        seen = Seen(loss, fresh, momentum, left, 1 - own / damped, wrong, model.lowers)
        self._memory.add(seen)

    def _both(self, turned: Tensor) -> Direction:
        return Direction(turned, flatten(self._basis.back(turned)))

    def state_dict(self) -> State:
        return {
            "steps": self._steps,
            "parts": None if self._parts is None else self._parts.tolist(),
            "usable": self._usable,
            "since": self._since,
            "pull": self._pull,
            "signed": self._signed,
        }

    def load_state_dict(self, state: State) -> None:
        self._steps, self._since = int(state["steps"]), int(state["since"])
        self._usable = bool(state["usable"])
        parts, pull = state["parts"], state["pull"]
        self._parts = None if parts is None else np.array(parts)
        self._pull = None if pull is None else float(pull)
        self._signed = bool(state["signed"])


def repeatable(fresh: float, momentum: float) -> bool:
    """Whether further steps may be of these parts.

    A part of the last step outside of 0 to 1 was for that one alone: taken again and again it
    makes steps that grow.
    """
    return fresh > 0 and 0 <= momentum <= 1


def interval(steps: int, part: int, most: int) -> int:
    """Return after how many steps to do a thing again that is due ever less often."""
    return min(most, max(1, steps // part))
