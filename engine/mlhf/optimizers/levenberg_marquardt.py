"""Damping by how well the last step's quadratic model foretold the loss."""

import torch
from torch import Tensor

from mlhf.optimizers.protocol import State


class LevenbergMarquardt:
    """S = λI, with λ by the ratio ρ of actual to predicted reduction (Martens 2010, §4.1).

    After each step ρ = (ℓ(θ) − ℓ(θ'))/(m(θ) − m(θ')), both losses on the step's own batch
    (same dropout mask, same weight decay), m the undamped quadratic model. ρ > ¾: λ is
    multiplied by ``decrease``; ρ < ¼, or a loss that is not finite: by ``increase``. A step
    that did not lower the loss (ρ ≤ 0) is taken back, so that λ finds its way up from
    anywhere. λ is a tensor and all of this stays on the device.

    Martens' factors, ⅔ and 3/2 without bounds, are for batches of thousands. On small batches
    a step that overfits its own batch looks good, λ falls and the run with it; the defaults
    here fall slowly, rise fast and stop at 0.3.

    Args:
        damping: λ at first.
        decrease: Factor of a λ that was too large.
        increase: Factor of a λ that was too small.
        bounds: The least and the largest λ.
    """

    def __init__(
        self,
        damping: float = 1.0,
        decrease: float = 0.95,
        increase: float = 3.0,
        bounds: tuple[float, float] = (0.3, 1e6),
    ) -> None:
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

    def judge(self, actual: Tensor, predicted: Tensor) -> Tensor:
        """See the last step's actual and predicted reduction; return ρ."""
        assert self._scale is not None
        tiny = torch.finfo(predicted.dtype).tiny
        ratio = actual / predicted.clamp_min(tiny)
        good = ratio > 0.75
        bad = ~(ratio >= 0.25)  # NaN is bad
        factor = torch.where(good, self._decrease, torch.where(bad, self._increase, 1.0))
        self._scale = (self._scale * factor).clamp(*self._bounds).to(predicted.dtype)
        return ratio

    def state_dict(self) -> State:
        return {"scale": self._scale}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        scale = state["scale"]
        self._scale = None if scale is None else scale.to(like, copy=True)
