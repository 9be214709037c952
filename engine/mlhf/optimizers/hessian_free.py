"""Hessian-free steps: solve (G + S)d = ∇ℓ by a few PCG iterations, then θ ← θ − lr·d."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_pass import select_parameters
from mlhf.curvature.ggn import GGN
from mlhf.curvature.microbatches import batch_curvature, count_samples, split_batch
from mlhf.curvature.pcg import Workspace, pcg
from mlhf.curvature.protocol import Curvature, CurvatureFactory, Loss
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.again import Again
from mlhf.optimizers.damping import (
    AdamDamping,
    Damping,
    FixedDamping,
    Judging,
)
from mlhf.optimizers.protocol import State, StepResult


class HessianFree:
    """Steps by the damped Gauss-Newton matrix of each batch.

    Works alone: ``opt = HessianFree(model); opt.step(x, y)``. A step costs the gradient and
    about ``iterations`` + ½ products, each about as dear as a gradient. The residual it
    reports, relative to ‖∇ℓ‖, is that before the last iteration: to know the one after
    would cost half a product more and change nothing.

    Args:
        model: Any module that returns a tensor, or a tuple, list or dict of tensors.
        loss: ``"cross_entropy"``, ``"mse"``, ``"binary_cross_entropy"``, or a function
            (z, y) ↦ scalar of what the model returns.
        damping: S: ``"adam"`` is λ(1 + k/T)^a (√v̂ + eps), which also preconditions the
            solve; ``"fixed"`` a constant; or an object with their two methods. One that
            judges steps (``LevenbergMarquardt``) makes each dearer by half a product and a
            forward pass, and takes back those that do not lower the loss.
        iterations: PCG iterations.
        lr: Factor of the step.
        warm_start: The solve starts from this part of the last solution. By default 0.9
            with ``"adam"``, 1 with ``"fixed"``.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        tolerance: A solve stops moving once its residual's norm is below it.
        parameters: Which parameters to train, by default all that require a gradient.
        curvature: Which matrix takes G's place: ``EmpiricalFisher``, or ``Hessian`` under a
            damping that makes it positive.
        micro_batch: The batch is computed in parts of this size, in the memory of one part;
            each product then runs the forward pass again. ``MicrobatchCurvature`` says when
            the result is that of the whole batch.
        curvature_batch: The matrix is that of this many samples of each batch.
        autocast: The type of forward and backward passes under autocast, such as
            ``torch.bfloat16``; the solve and its inner products stay in the parameters' own.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        damping: Literal["adam", "fixed"] | Damping = "adam",
        *,
        iterations: int = 4,
        lr: float = 1.0,
        warm_start: float | None = None,
        weight_decay: float = 0.0,
        tolerance: float = 1e-6,
        parameters: Sequence[Tensor] | None = None,
        curvature: CurvatureFactory = GGN,
        micro_batch: int | None = None,
        curvature_batch: int | None = None,
        autocast: torch.dtype | None = None,
    ) -> None:
        if iterations < 1:
            raise ValueError("iterations must be at least 1")
        self.model = model
        self.loss = loss
        self.iterations = iterations
        self.lr = lr
        self.warm_start = (1.0 if damping == "fixed" else 0.9) if warm_start is None else warm_start
        self.weight_decay = weight_decay
        self.tolerance = tolerance
        self.damping: Damping = (
            (AdamDamping() if damping == "adam" else FixedDamping())
            if isinstance(damping, str)
            else damping
        )
        self._parameters = select_parameters(model, parameters)
        self._make = curvature
        self._micro_batch, self._curvature_batch = micro_batch, curvature_batch
        self._autocast = autocast
        self._direction: Tensor | None = None  # d of the last step, flat
        self._space: _Space | None = None

    def step(self, x: Any, y: Any) -> StepResult:
        judge = self.damping if isinstance(self.damping, Judging) else None
        device = self._parameters[0].device
        again = None if judge is None else Again(self.model, device, self._autocast)
        ggn = self._curvature(x, y)
        with torch.no_grad():
            b = flatten(ggn.gradient)
            if self.weight_decay:
                b.add_(flatten(self._parameters), alpha=self.weight_decay)
            shift, inverse = self.damping.update(b)
            if self.weight_decay:
                shift = shift + self.weight_decay
            start = None
            if self._direction is not None and self.warm_start:
                start = self._direction.mul_(self.warm_start)
            if self._space is None:
                self._space = _Space(b)
            matrix = _Damped(ggn, shift, self._parameters, self._space.product)
            solved = pcg(
                matrix.product,
                b,
                start,
                inverse,
                iterations=self.iterations,
                tolerance=self.tolerance,
                quadratic=matrix.quadratic,
                workspace=self._space,
                overwrite=True,
            )
            self._direction = solved.x
            tiny = torch.finfo(b.dtype).tiny
            relative = solved.residual_norm / torch.linalg.vector_norm(b).clamp_min(tiny)
            stats = {"damping": self.damping.scale, "cg_residual": relative}
            if judge is None or again is None:
                self._move(solved.x)
            else:
                predicted = self._predicted(ggn, b, solved.x)
                stats["reduction_ratio"] = self._move_judged(judge, again, ggn, predicted, x, y)
        return StepResult(ggn.loss, stats)

    def _curvature(self, x: Any, y: Any) -> Curvature:
        return batch_curvature(
            self.model,
            self.loss,
            x,
            y,
            self._parameters,
            autocast=self._autocast,
            micro_batch=self._micro_batch,
            curvature_batch=self._curvature_batch,
            curvature=self._make,
        )

    def state_dict(self) -> State:
        return {"direction": self._direction, "damping": self.damping.state_dict()}

    def load_state_dict(self, state: State) -> None:
        direction = state["direction"]
        like = self._parameters[0]
        self._direction = None if direction is None else direction.to(like, copy=True)
        self.damping.load_state_dict(state["damping"], like)

    def _move(self, direction: Tensor) -> None:
        torch._foreach_add_(
            self._parameters, unflatten(direction, self._parameters), alpha=-self.lr
        )

    def _predicted(self, ggn: Curvature, b: Tensor, d: Tensor) -> Tensor:
        """Return by how much θ − lr·d lowers the undamped quadratic model of the objective."""
        curvature = ggn.quadratic(unflatten(d, self._parameters))
        curvature = curvature + self.weight_decay * torch.dot(d, d)
        return self.lr * torch.dot(b, d) - 0.5 * self.lr**2 * curvature

    def _move_judged(
        self, judge: Judging, again: Again, ggn: Curvature, predicted: Tensor, x: Any, y: Any
    ) -> Tensor:
        """Move, let the damping judge, take the step back if it was no good; return the ratio."""
        assert self._direction is not None
        before = flatten(self._parameters)
        self._move(self._direction)
        after = flatten(self._parameters)
        penalty = torch.dot(before, before) - torch.dot(after, after)
        whole = self._micro_batch is None and self._curvature_batch is None
        parts = (
            None
            if whole
            else split_batch(count_samples(x), self._micro_batch, self._curvature_batch)
        )
        actual = ggn.loss - again.loss(self.loss, x, y, parts) + 0.5 * self.weight_decay * penalty
        ratio = judge.judge(actual, predicted)
        kept = ratio > 0
        for p, old in zip(self._parameters, unflatten(before, self._parameters), strict=True):
            p.copy_(torch.where(kept, p, old))
        self._direction = torch.where(kept, self._direction, 0.0)
        return ratio


class _Space(Workspace):
    """The solver's vectors and one for the products."""

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        self.product = torch.empty_like(like)


class _Damped:
    """G + S on flat vectors. A product is valid until the next one."""

    def __init__(
        self, ggn: Curvature, shift: Tensor | float, parameters: Sequence[Tensor], out: Tensor
    ) -> None:
        self._out = out
        self._ggn = ggn
        self._shift = shift
        self._parameters = parameters

    def product(self, v: Tensor) -> Tensor:
        gv = flatten(self._ggn.product(unflatten(v, self._parameters)), self._out)
        if isinstance(self._shift, Tensor):
            return gv.addcmul_(self._shift, v)
        return gv.add_(v, alpha=self._shift)

    def quadratic(self, v: Tensor) -> Tensor:
        vgv = self._ggn.quadratic(unflatten(v, self._parameters))
        return vgv + torch.dot(v * self._shift, v)
