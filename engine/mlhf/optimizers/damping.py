"""Damping of the Gauss-Newton matrix, and the preconditioner it implies."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.optimizers.options import check_options
from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored


@runtime_checkable
class Damping(Protocol):
    """A rule for S in (G + S)d = ∇ℓ.

    ``update`` and ``adapt`` replace what is state, and change no tensor of it in place: that is
    how a step that turns out not to be finite is taken back.
    """

    @property
    def scale(self) -> float | Tensor:
        """The scale of the damping after the last update, for the curves."""
        ...

    def update(self, gradient: Tensor) -> tuple[Tensor | float, Tensor | None]:
        """Return S's diagonal and the inverse preconditioner P, given the step's gradient (n,).

        Either is a tensor (n,), or a number or None for a constant. Both are valid until the
        next update.
        """
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State, like: Tensor) -> None: ...


@runtime_checkable
class AdaptiveDamping(Damping, Protocol):
    """A rule that adapts to the gain ratio of each step, as trust-region methods do."""

    def adapt(self, actual: Tensor, predicted: Tensor) -> Tensor:
        """Adapt the damping; return the gain ratio, actual over predicted, a scalar.

        A step whose gain ratio is not positive is rejected by the optimizer.

        Args:
            actual: By how much the step reduced the objective, a scalar.
            predicted: By how much its quadratic model said it would, a scalar.
        """
        ...


@contextmanager
def replacing_state(damping: Damping) -> Iterator[None]:
    """Within it a rule must replace its state. Raises CurvatureError where it changes a tensor."""
    held = {
        name: (value, value._version)
        for name, value in damping.state_dict().items()
        if isinstance(value, Tensor) and not value.is_inference()
    }
    yield
    for name, (value, version) in held.items():
        if value._version != version:
            raise CurvatureError(
                f"{type(damping).__name__} changed its state {name!r} in place, which a skipped "
                "step could not take back; assign a new tensor instead of changing the old one"
            )


class FixedDamping:
    """S = λI, without a preconditioner: a constant one would change nothing.

    Raises:
        ValueError: for λ out of range.
    """

    def __init__(self, damping: float = 1.0) -> None:
        check_options(damping=damping)
        self.scale = damping

    def update(self, gradient: Tensor) -> tuple[float, None]:
        return self.scale, None

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        pass


class AdamDamping:
    """S = λ(1 + k/T)^a (√v̂ + eps) with Adam's v̂, and P = S⁻¹.

    v̂ is the bias-corrected running mean of the squared gradient, this step's included. So the
    damping has Adam's scale per coordinate: with G = 0 the step would be Adam's without
    momentum, at learning rate 1/λ. The growth acts as a decaying learning rate.

    Args:
        damping: λ.
        growth_steps: T.
        growth_exponent: a.
        beta2: Decay of the running mean.
        eps: Added to √v̂.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        damping: float = 50.0,
        growth_steps: float = 100.0,
        growth_exponent: float = 0.5,
        beta2: float = 0.99,
        eps: float = 1e-5,
    ) -> None:
        check_options(
            damping=damping,
            growth_steps=growth_steps,
            growth_exponent=growth_exponent,
            beta2=beta2,
            eps=eps,
        )
        self._damping = damping
        self._growth_steps = growth_steps
        self._growth_exponent = growth_exponent
        self._beta2 = beta2
        self._eps = eps
        self._steps = 0
        self._second_moment: Tensor | None = None
        self._shift: Tensor | None = None  # S, kept to reuse its memory
        self._inverse: Tensor | None = None  # P, likewise
        self.scale = damping

    def update(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        before = torch.zeros_like(gradient) if self._second_moment is None else self._second_moment
        v = self._second_moment = torch.mul(before, self._beta2)
        v.addcmul_(gradient, gradient, value=1 - self._beta2)
        self.scale = self._damping * (1 + self._steps / self._growth_steps) ** self._growth_exponent
        self._steps += 1
        correction = 1 / math.sqrt(1 - self._beta2**self._steps)
        # scale·(√v·correction + eps), in as few passes over memory as possible
        if self._shift is None or self._inverse is None:
            self._shift, self._inverse = torch.empty_like(v), torch.empty_like(v)
        torch.sqrt(v, out=self._shift)
        self._shift.add_(self._eps / correction).mul_(self.scale * correction)
        return self._shift, torch.reciprocal(self._shift, out=self._inverse)

    def state_dict(self) -> State:
        return {"steps": self._steps, "second_moment": self._second_moment}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._steps = int(state["steps"])
        self._second_moment = restored(state["second_moment"], like)
        self._shift = self._inverse = None  # there may be other parameters now
