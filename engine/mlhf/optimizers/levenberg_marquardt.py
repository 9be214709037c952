"""Damping adapted to how well the quadratic model predicts the loss."""

import torch
from torch import Tensor

from mlhf.optimizers.options import check_options
from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored


class LevenbergMarquardt:
    """S = λI, with λ adapted to the gain ratio ρ (Martens 2010, section 4.1).

    After each step ρ = (ℓ(θ) − ℓ(θ'))/(m(θ) − m(θ')), with both losses on the step's own batch
    (same dropout mask, same weight decay) and m the undamped quadratic model. Where ρ > ¾, λ is
    multiplied by ``decrease``; where ρ < ¼, or the loss is not finite, by ``increase``. A step
    that does not reduce the loss (ρ ≤ 0) is rejected, so that λ recovers from any value. λ is a
    tensor, and all of this stays on the device.

    Martens' factors, ⅔ and 3/2 without bounds, are for batches of thousands. On small batches a
    step that overfits its own batch has a high gain ratio; λ falls, and the run diverges. With
    the defaults here λ falls slowly, rises fast, and stays above 0.3.

    Args:
        damping: λ at first.
        decrease: Factor of a λ that was too large.
        increase: Factor of a λ that was too small.
        bounds: The smallest and the largest λ.

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

    @property
    def scale(self) -> Tensor | float:
        return self._start if self._scale is None else self._scale

    def update(self, gradient: Tensor) -> tuple[Tensor, None]:
        if self._scale is None:
            self._scale = gradient.new_tensor(self._start).clamp_(*self._bounds)
        return self._scale, None

    def adapt(self, actual: Tensor, predicted: Tensor) -> Tensor:
        """Adapt λ to the last step's actual and predicted reduction, scalars; return ρ."""
        assert self._scale is not None
        tiny = torch.finfo(predicted.dtype).tiny
        ratio = actual / predicted.clamp_min(tiny)
        high = ratio > 0.75
        low = ~(ratio >= 0.25)  # NaN counts as low
        factor = torch.where(high, self._decrease, torch.where(low, self._increase, 1.0))
        self._scale = (self._scale * factor).clamp(*self._bounds).to(predicted.dtype)
        return ratio

    def state_dict(self) -> State:
        return {"scale": self._scale}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._scale = restored(state["scale"], like)
