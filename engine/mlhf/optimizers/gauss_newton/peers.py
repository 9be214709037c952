"""Peers of Gauss-Newton for least squares, each by its own paper.

They take the same rows, in the same memory (``GaussNewton``); what differs is damping, length
and momentum.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.protocol import Loss
from mlhf.curvature.vectors import vector_like
from mlhf.optimizers.gauss_newton.optimizer import GaussNewton
from mlhf.optimizers.gauss_newton.systems import System
from mlhf.optimizers.options import check_options
from mlhf.optimizers.params import EngdWParams, LmParams, SpringParams
from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored, tensors_copied
from mlhf.optimizers.step_guard import NotFinite

_TRIALS = 40  # of a step of Levenberg-Marquardt
_RAISED = 12  # tenfold dampings, where a factor fails
_GRID = 31  # lengths 1, ½, ¼ … of a line search


class DenseLevenbergMarquardt(GaussNewton):
    """Levenberg-Marquardt with Nielsen's damping (Madsen, Nielsen & Tingleff 2004, algorithm 3.16).

    λ starts at τ·tr(JᵀJ)/p; the trace's share stands for the largest element of the diagonal. A
    step is taken where the gain ratio ρ is positive, and λ multiplied by max(⅓, 1 − (2ρ − 1)³);
    else λ grows by ν = 2, 4, 8 … and the step is solved again.

    Args:
        model: As for ``GaussNewton``, like the further options.
        loss: As for ``GaussNewton``.
        tau: τ.
    """

    def __init__(
        self, model: nn.Module, loss: Loss | None = None, *, tau: float = 1e-3, **options: Any
    ) -> None:
        super().__init__(model, loss, **options)
        check_options(damping=tau)
        self._tau = tau

    def _advance(
        self, system: System, evaluate: Callable[[], Tensor], loss: Tensor
    ) -> dict[str, float]:
        if self._damping is None:
            self._damping = self._tau * system.trace / len(system.gradient)
        first, before = float(loss) + self._penalty(), self._copy()
        scale, growth = self._damping, 2.0
        for _ in range(_TRIALS if self.lr and bool(system.gradient.any()) else 0):
            d = system.solve(scale)
            if d is not None:
                after = self._value_at(before, d, self.lr, evaluate)
                predicted = 0.5 * float(torch.dot(d, scale * d + system.gradient))
                ratio = (first - after) / predicted if predicted > 0 else -math.inf
                if math.isfinite(after) and ratio > 0:
                    self._move(d, self.lr)
                    self._damping = scale * max(1 / 3, 1 - (2 * ratio - 1) ** 3)
                    return {"damping": scale, "reduction_ratio": ratio}
            scale, growth = max(scale, torch.finfo(loss.dtype).tiny) * growth, growth * 2
            if not math.isfinite(scale):
                break
        return {"damping": self._damping, "reduction_ratio": 0.0}


class EngdW(GaussNewton):
    """Energy natural gradient descent by the Woodbury identity (Guzmán-Cordero et al. 2025).

    d = Jᵀ(JJᵀ + λI)⁻¹r with a constant λ (more where float32 has no factor of it), and the best
    length of 1, ½, ¼ … 2⁻³⁰ (Müller & Zeinhofer 2023).

    Args:
        model: As for ``GaussNewton``, like the further options.
        loss: As for ``GaussNewton``.
        damping: λ.
    """

    def __init__(
        self, model: nn.Module, loss: Loss | None = None, *, damping: float = 1e-9, **options: Any
    ) -> None:
        super().__init__(model, loss, damping=damping, **options)

    def _advance(
        self, system: System, evaluate: Callable[[], Tensor], loss: Tensor
    ) -> dict[str, float]:
        assert self._start is not None
        best, length = float(loss) + self._penalty(), 0.0
        d = _solved(system, self._start) if self.lr else None
        if d is not None:
            before = self._copy()
            for k in range(_GRID):
                value = self._value_at(before, d, self.lr * 0.5**k, evaluate)
                if value < best:
                    best, length = value, 0.5**k
            if length:
                self._move(d, self.lr * length)
        return {"damping": self._start, "step_length": length}


class Spring(GaussNewton):
    """SPRING (Goldshlager, Abrahamsen & Lin 2024): Kaczmarz-inspired projection with momentum.

        φ = argmin ‖Jφ − r‖² + λ‖φ − μφ'‖²,  θ ← θ − min(lr, √C/‖φ‖)·φ

    with φ' the last φ.

    Args:
        model: As for ``GaussNewton``, like the further options.
        loss: As for ``GaussNewton``.
        damping: λ.
        momentum: μ.
        norm_constraint: C; None for no bound.
        lr: The rate.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None = None,
        *,
        damping: float = 1e-3,
        momentum: float = 0.99,
        norm_constraint: float | None = 1e-3,
        lr: float = 0.02,
        **options: Any,
    ) -> None:
        super().__init__(model, loss, damping=damping, lr=lr, **options)
        check_options(momentum=momentum, norm_clip=norm_constraint)
        self._momentum, self._constraint = momentum, norm_constraint
        self._last: Tensor | None = None

    def _advance(
        self, system: System, evaluate: Callable[[], Tensor], loss: Tensor
    ) -> dict[str, float]:
        assert self._start is not None
        extra = None if self._last is None else (self._start * self._momentum) * self._last
        d = _solved(system, self._start, extra)
        if d is None:
            raise NotFinite("direction", loss)
        rate, norm = self.lr, float(torch.linalg.vector_norm(d))
        if self._constraint is not None and norm > 0:
            rate = min(rate, math.sqrt(self._constraint) / norm)
        self._move(d, rate)
        self._last = d
        return {"damping": self._start, "step_length": rate}

    def state_dict(self) -> State:
        return {**super().state_dict(), **tensors_copied({"last": self._last})}

    def load_state_dict(self, state: State) -> None:
        super().load_state_dict(state)
        self._last = restored(state.get("last"), vector_like(self._parameters))


def _solved(system: System, damping: float, extra: Tensor | None = None) -> Tensor | None:
    """Return the solution at the least tenfold of λ whose matrix rounding leaves positive."""
    for _ in range(_RAISED):
        d = system.solve(damping, extra)
        if d is not None:
            return d
        damping *= 10
    return None


def build_lm(model: nn.Module, loss: Loss, params: LmParams, seed: int) -> DenseLevenbergMarquardt:
    """Return ``lm`` of the registry."""
    return DenseLevenbergMarquardt(model, loss, tau=params.tau, **_common(params, seed))


def build_engd_w(model: nn.Module, loss: Loss, params: EngdWParams, seed: int) -> EngdW:
    """Return ``engd_w`` of the registry."""
    return EngdW(model, loss, damping=params.damping, **_common(params, seed))


def build_spring(model: nn.Module, loss: Loss, params: SpringParams, seed: int) -> Spring:
    """Return ``spring`` of the registry."""
    return Spring(
        model,
        loss,
        damping=params.damping,
        momentum=params.momentum,
        norm_constraint=params.norm_constraint,
        **_common(params, seed),
    )


def _common(params: LmParams | EngdWParams | SpringParams, seed: int) -> dict[str, Any]:
    return {
        "lr": params.lr,
        "weight_decay": params.weight_decay,
        "memory_bytes": params.memory_bytes,
        "seed": seed,
        "max_skipped_steps": params.max_skipped_steps,
    }
