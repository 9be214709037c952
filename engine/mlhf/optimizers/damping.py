"""What is added to the Gauss-Newton matrix's diagonal, and the preconditioner it implies."""

import math
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mlhf.optimizers.protocol import State


class Damping(Protocol):
    """A rule for S in (G + S)d = ∇ℓ."""

    @property
    def scale(self) -> float | Tensor:
        """The scale of the last update, for the curves."""
        ...

    def update(self, gradient: Tensor) -> tuple[Tensor | float, Tensor | None]:
        """See the step's gradient; return S's diagonal and the inverse preconditioner P.

        Both are valid until the next update.
        """
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State, like: Tensor) -> None: ...


@runtime_checkable
class Judging(Damping, Protocol):
    """A rule that learns from how well the last step did."""

    def judge(self, actual: Tensor, predicted: Tensor) -> Tensor:
        """See how far the step lowered the objective, and how far its model said it would.

        Returns their ratio, scalar like both arguments. A step whose ratio is not positive
        is then taken back.
        """
        ...


class FixedDamping:
    """S = λI. A constant preconditioner would change nothing, so there is none."""

    def __init__(self, damping: float = 1.0) -> None:
        self.scale = damping

    def update(self, gradient: Tensor) -> tuple[float, None]:
        return self.scale, None

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        pass


class AdamDamping:
    """S = λ(1 + k/T)^a (√v̂ + eps) with Adam's v̂, and P = S⁻¹.

    v̂ is the bias-corrected running mean of the squared gradient, this step's included, so
    the damping has Adam's scale per coordinate: with G = 0 the step would be Adam's without
    momentum, at learning rate 1/λ. Growth plays the part of a decaying learning rate.
    """

    def __init__(
        self,
        damping: float = 50.0,
        growth_steps: float = 100.0,
        growth_exponent: float = 0.5,
        beta2: float = 0.99,
        eps: float = 1e-5,
    ) -> None:
        self._damping = damping
        self._growth_steps = growth_steps
        self._growth_exponent = growth_exponent
        self._beta2 = beta2
        self._eps = eps
        self._steps = 0
        self._second_moment: Tensor | None = None
        self._shift: Tensor | None = None  # kept for its memory only
        self._inverse: Tensor | None = None
        self.scale = damping

    def update(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        if self._second_moment is None:
            self._second_moment = torch.zeros_like(gradient)
        v = self._second_moment
        v.mul_(self._beta2).addcmul_(gradient, gradient, value=1 - self._beta2)
        self.scale = self._damping * (1 + self._steps / self._growth_steps) ** self._growth_exponent
        self._steps += 1
        correction = 1 / math.sqrt(1 - self._beta2**self._steps)
        # scale·(√v·correction + eps), with as few passes over memory as it takes
        if self._shift is None or self._inverse is None:
            self._shift, self._inverse = torch.empty_like(v), torch.empty_like(v)
        torch.sqrt(v, out=self._shift)
        self._shift.add_(self._eps / correction).mul_(self.scale * correction)
        return self._shift, torch.reciprocal(self._shift, out=self._inverse)

    def state_dict(self) -> State:
        return {"steps": self._steps, "second_moment": self._second_moment}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        moment = state["second_moment"]
        self._steps = int(state["steps"])
        self._second_moment = None if moment is None else moment.to(like, copy=True)
