"""Damping adapted to how well the quadratic model predicts the loss."""

import torch
from torch import Tensor

from mlhf.optimizers.options import check_options
from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored

_DECAY = 0.9  # of the gradient's norm


class LevenbergMarquardt:
    """S = λI, with λ adapted to the gain ratio ρ (Martens 2010, section 4.1).

    After each step ρ = (ℓ(θ) − ℓ(θ'))/(m(θ) − m(θ')), with both losses on the step's own batch
    (same dropout mask, same weight decay) and m the undamped quadratic model. Where ρ > ¾, λ is
    multiplied by ``decrease``; where ρ < ¼, or the loss is not finite, by ``increase``. A step
    that does not reduce the loss (ρ ≤ 0) is rejected, so that λ recovers from any value. λ is a
    tensor, and all of this stays on the device.

    Martens' factors, ⅔ and 3/2 without bounds, are for batches of thousands. On small batches a
    step that overfits its own batch has a high gain ratio; λ falls, and the run diverges. With
    the defaults here λ falls slowly, rises fast, and stays above 0.3. That bound falls with the
    gradient: where there is no noise, as in least squares without error, the gradients of batches
    vanish, and so has λ to.

    Args:
        damping: λ at first.
        decrease: Factor of a λ that was too large.
        increase: Factor of a λ that was too small.
        bounds: The smallest and the largest λ. The smallest is multiplied by the running mean of
            the gradient's norm over the first one, where that is below 1.

    Raises:
        ValueError: for an option out of range.
    """

    def __init__(
        self,
        damping: float = 1.0,
        decrease: float = 0.95,
        increase: float = 3.0,
        bounds: tuple[float, float] = (0.3, 1e6),
    ) -> None:
        check_options(damping=damping, decrease=decrease, increase=increase)
        low, high = bounds
        if not 0 <= low <= high:
            raise ValueError(
                f"bounds={bounds!r} is not allowed: it should be (low, high) with 0 <= low <= high"
            )
        self._start = damping
        self._decrease = decrease
        self._increase = increase
        self._bounds = bounds
        self._scale: Tensor | None = None
        self._first: Tensor | None = None  # the gradient's norm
        self._norm: Tensor | None = None  # its running mean

    @property
    def scale(self) -> Tensor | float:
        return self._start if self._scale is None else self._scale

    def update(self, gradient: Tensor) -> tuple[Tensor, None]:
        norm = torch.linalg.vector_norm(gradient)
        if self._first is None or self._norm is None:
            self._first = self._norm = norm
        else:
            self._norm = torch.lerp(self._norm, norm, 1 - _DECAY)
        if self._scale is None:
            self._scale = gradient.new_tensor(self._start).clamp_(*self._bounds)
        return self._scale, None

    def adapt(self, actual: Tensor, predicted: Tensor) -> Tensor:
        """Adapt λ to the last step's actual and predicted reduction, scalars; return ρ."""
        assert self._scale is not None
        tiny = torch.finfo(predicted.dtype).tiny
        ratio = actual / predicted.clamp_min(tiny)
        good = ratio > 0.75
        bad = ~(ratio >= 0.25)  # as NaN is
        factor = torch.where(good, self._decrease, torch.where(bad, self._increase, 1.0))
        low, high = self._bounds
        scale = (self._scale * factor).clamp_max(high)
        self._scale = torch.maximum(scale, low * self._lowered()).to(predicted.dtype)
        return ratio

    def _lowered(self) -> Tensor:
        """Return the factor of the smallest λ, at most 1."""
        assert self._first is not None
        assert self._norm is not None
        share = (self._norm / self._first).clamp_max(1.0)
        return torch.where(self._first > 0, share, 1.0)

    def state_dict(self) -> State:
        if self._first is None:  # a fresh one takes older states, which have the scale alone
            return {"scale": self._scale}
        return {"scale": self._scale, "first": self._first, "norm": self._norm}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._scale = restored(state["scale"], like)
        # Older states have none: the bound then falls from here on.
        self._first = restored(state.get("first"), like)
        self._norm = restored(state.get("norm"), like)
