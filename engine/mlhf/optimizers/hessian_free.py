"""Hessian-free steps: solve (G + S)d = ∇ℓ by a few PCG iterations, then θ ← θ − lr·d."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import full_precision
from mlhf.curvature.ggn import GGN
from mlhf.curvature.losses import check_loss
from mlhf.curvature.microbatches import MicrobatchCurvature, batch_curvature
from mlhf.curvature.pcg import Workspace, pcg
from mlhf.curvature.protocol import Curvature, CurvatureFactory, Loss
from mlhf.curvature.vectors import flatten, unflatten, vector_like
from mlhf.optimizers.autocast import autocast_dtype
from mlhf.optimizers.damping import (
    AdamDamping,
    AdaptiveDamping,
    Damping,
    FixedDamping,
    replacing_state,
)
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt
from mlhf.optimizers.options import check_autocast, check_model, check_options
from mlhf.optimizers.params import (
    AdamDampingParams,
    FixedDampingParams,
    LevenbergMarquardtParams,
)
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.reevaluate import BatchReevaluator
from mlhf.optimizers.state import check_state, restored, shapes_of
from mlhf.optimizers.step_guard import StepGuard, add, check
from mlhf.optimizers.torch_api.base import TorchOptimizer, sum_of
from mlhf.optimizers.torch_api.gradients import Gradients, pass_weights
from mlhf.optimizers.torch_api.param_groups import Parameters, flat
from mlhf.optimizers.torch_api.recorder import Pass


class HessianFree(TorchOptimizer):
    """Steps by the damped Gauss-Newton matrix of each batch.

    Works alone: ``opt = HessianFree(model); opt.step(x, y)``. A step costs the gradient and
    about ``iterations`` + ½ products, each about as expensive as a gradient. The residual that
    it reports, relative to ‖∇ℓ‖, is the one before the last iteration: computing the one after
    would cost half a product more and change nothing.

    Args:
        model: Any module that returns a tensor, or a tuple, list or dict of tensors.
        loss: ``"cross_entropy"``, ``"mse"``, ``"binary_cross_entropy"``, or a function
            (z, y) ↦ scalar of what the model returns.
        damping: S: ``"adam"`` is λ(1 + k/T)^a (√v̂ + eps), which also preconditions the
            solve; ``"fixed"`` a constant; or any ``Damping``. An ``AdaptiveDamping``
            (``LevenbergMarquardt``) makes each step more expensive by half a product and a
            forward pass, and steps that do not reduce the loss are rejected.
        iterations: PCG iterations.
        lr: Factor of the step.
        warm_start: The solve starts from this fraction of the last solution. By default 0.9
            with ``"adam"``, 1 with ``"fixed"``.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        tolerance: A solve stops moving once its residual's norm is below it times the gradient's.
        parameters: Which parameters to train, by default all that require a gradient: tensors,
            pairs of a name and a tensor, or groups, dicts with ``params``, ``lr`` and
            ``weight_decay``.
        curvature: Which matrix to use in place of G, such as ``EmpiricalFisher`` or
            ``Hessian``. A solve ends at a direction d where that is not positive enough:
            dᵀ(H + S)d ≤ ½dᵀSd, or where second derivatives have no value, as at a kink. With
            ``"fixed"`` damping a step may then be too long, since nothing bounds it:
            ``LevenbergMarquardt`` rejects those that raise the loss.
        micro_batch: The batch is computed in microbatches of this size, in the memory of one;
            each product then runs the forward passes again. ``MicrobatchCurvature``
            says when the result is that of the whole batch.
        curvature_batch: The matrix is computed over this many samples of each batch.
        autocast: The dtype of forward and backward passes under autocast, such as
            ``torch.bfloat16``; the solve and its inner products keep the parameters' dtype.
        max_skipped_steps: Steps that are not finite are skipped; after so many in a row the
            next is an error.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        ValueError: for an unknown loss, or an option out of range.
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
        parameters: Parameters | None = None,
        curvature: CurvatureFactory = GGN,
        micro_batch: int | None = None,
        curvature_batch: int | None = None,
        autocast: torch.dtype | None = None,
        max_skipped_steps: int = 10,
    ) -> None:
        check_model(model)
        check_loss(loss)
        check_autocast(autocast)
        check_options(
            iterations=iterations,
            lr=lr,
            warm_start=warm_start,
            weight_decay=weight_decay,
            tolerance=tolerance,
            micro_batch=micro_batch,
            curvature_batch=curvature_batch,
        )
        if damping not in ("adam", "fixed") and not isinstance(damping, Damping):
            raise ValueError(
                f"damping={damping!r} is not allowed: it should be 'adam', 'fixed', or a Damping, "
                "such as FixedDamping(0.1)"
            )
        self.iterations = iterations
        self.warm_start = (1.0 if damping == "fixed" else 0.9) if warm_start is None else warm_start
        self.tolerance = tolerance
        self.damping: Damping = (
            (AdamDamping() if damping == "adam" else FixedDamping())
            if isinstance(damping, str)
            else damping
        )
        self._fresh_damping = self.damping.state_dict()
        self._curvature_type = curvature
        self._semidefinite = isinstance(curvature, type) and issubclass(curvature, GGN)
        self._micro_batch, self._curvature_batch = micro_batch, curvature_batch
        self._autocast = autocast
        self._direction: Tensor | None = None  # d of the last step, flat
        self._guard = StepGuard(model, max_skipped_steps, [self, self.damping])
        super().__init__(model, loss, parameters, {"lr": lr, "weight_decay": weight_decay})

    def _begin(self) -> None:
        if self._direction is not None:  # steps were taken, with other parameters
            self._direction = None
            self.damping.load_state_dict(self._fresh_damping, vector_like(self._parameters))
        self._buffers: _Buffers | None = None

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    def loss(self, z: Any, y: Any, *, batch_size: float | None = None) -> Tensor:
        self._refuse_batch_options()
        return super().loss(z, y, batch_size=batch_size)

    def _step_on_batch(self, x: Any, y: Any, batch_size: float | None) -> StepResult:
        return self._guard.run(self._guarded_step, x, y)

    def _guarded_step(self, x: Any, y: Any) -> StepResult:
        reevaluator = None
        if self._replays():
            device = self._parameters[0].device
            reevaluator = BatchReevaluator(self.model, device, self._autocast)
        ggn = self._curvature(x, y)

        def reevaluated() -> Tensor:
            assert reevaluator is not None
            microbatches = ggn.microbatches if isinstance(ggn, MicrobatchCurvature) else None
            return reevaluator.loss(self.loss_function, x, y, microbatches)

        return self._step(ggn, reevaluated)

    def _step_on(self, passes: Sequence[Pass], gradients: Gradients) -> StepResult:
        self._refuse_batch_options()

        def step(_: Any, __: Any) -> StepResult:
            matrix = sum_of(passes, gradients)
            weights = pass_weights([each.factors for each in passes], gradients.scale)
            return self._step(matrix, partial(self._loss_again, passes, weights))

        inputs = [each.call and each.call[:2] for each in passes]
        return self._guard.run(step, inputs, [each.target for each in passes])

    def _replays(self) -> bool:
        return isinstance(self.damping, AdaptiveDamping)

    def _loss_again(self, passes: Sequence[Pass], weights: Sequence[float]) -> Tensor:
        """Return the loss of the passes at the present parameters, run in the same state."""
        losses = [each.loss_again(self.loss_function, self.model) for each in passes]
        return torch.stack([w * t for w, t in zip(weights, losses, strict=True)]).sum()

    def _refuse_batch_options(self) -> None:
        unused = {
            "curvature=": not self._semidefinite,
            "micro_batch=": self._micro_batch is not None,
            "curvature_batch=": self._curvature_batch is not None,
            "autocast=": self._autocast is not None,
        }
        for name in (name for name, given in unused.items() if given):
            raise CurvatureError(
                f"{name} is for steps that run the model themselves: leave it out, or take "
                "step(x, y)"
            )

    def _step(self, ggn: Curvature, reevaluated: Callable[[], Tensor]) -> StepResult:
        adaptive = self.damping if isinstance(self.damping, AdaptiveDamping) else None
        device = self._parameters[0].device
        with torch.no_grad(), full_precision(device):
            b = flatten(ggn.gradient)
            lr, decay = self._flat_option("lr"), self._flat_option("weight_decay")
            if isinstance(decay, Tensor):
                b.addcmul_(flatten(self._parameters), decay)
            elif decay:
                b.add_(flatten(self._parameters), alpha=decay)
            with replacing_state(self.damping):
                shift, inverse = self.damping.update(b)
            if isinstance(decay, Tensor) or decay:
                shift = shift + decay
            start = None
            if self._direction is not None and self.warm_start:
                start = self._direction * self.warm_start
            if self._buffers is None:
                self._buffers = _Buffers(b)
            matrix = _DampedMatrix(ggn, shift, self._parameters, self._buffers.product)
            solved = pcg(
                matrix.product,
                b,
                start,
                inverse,
                iterations=self.iterations,
                rtol=self.tolerance,
                atol=torch.finfo(b.dtype).tiny,
                least_curvature=None if self._semidefinite else matrix.least_curvature,
                quadratic=matrix.quadratic,
                workspace=self._buffers,
                overwrite=True,
            )
            self._direction = solved.x
            # A gradient whose squares overflow would spoil their running mean.
            found = {"gradient": [torch.dot(b, b)], "direction": [solved.x]}
            _, size = check(ggn.loss, found)
            tiny = torch.finfo(b.dtype).tiny
            relative = solved.residual_norm / torch.linalg.vector_norm(b).clamp_min(tiny)
            stats = {"damping": self.damping.scale, "cg_residual": relative}
            if isinstance(lr, Tensor):
                d, factor, size = solved.x * lr, 1.0, size * float(lr.max())
            else:
                d, factor = solved.x, lr
            if adaptive is None:
                update = unflatten(d, self._parameters)
                add(self._parameters, update, -factor, size, ggn.loss)
            else:
                predicted = self._predicted_reduction(ggn, b, d, factor, decay)
                before = flatten(self._parameters)
                update = unflatten(d, self._parameters)
                torch._foreach_add_(self._parameters, update, alpha=-factor)
                actual = ggn.loss - reevaluated() + self._penalty_reduction(before, decay)
                with replacing_state(adaptive):
                    ratio = adaptive.adapt(actual, predicted)
                self._reject_unless(ratio > 0, before)
                stats["reduction_ratio"] = ratio
        return StepResult(ggn.loss, stats)

    def _curvature(self, x: Any, y: Any) -> Curvature:
        return batch_curvature(
            self.model,
            self.loss_function,
            x,
            y,
            self._parameters,
            autocast=self._autocast,
            micro_batch=self._micro_batch,
            curvature_batch=self._curvature_batch,
            curvature=self._curvature_type,
        )

    def _state(self) -> State:
        return {
            "direction": self._direction,
            "damping": self.damping.state_dict(),
            "shapes": shapes_of(self._parameters),
            "guard": self._guard.state_dict(),
        }

    def _load(self, state: State) -> None:
        like = vector_like(self._parameters)
        check_state(self, state, ("direction", "damping"), self._parameters, self.model)
        check_state(self.damping, state["damping"], self.damping.state_dict())
        self._guard.load_state_dict(state.get("guard"))
        self._buffers = None
        self._direction = restored(state["direction"], like)
        self.damping.load_state_dict(state["damping"], like)

    def _flat_option(self, name: str) -> float | Tensor:
        """Return an option: a number, or (n,) where groups differ."""
        value = self._option(name)
        return flat(value, self._parameters) if isinstance(value, list) else value

    def _predicted_reduction(
        self, ggn: Curvature, b: Tensor, d: Tensor, factor: float, decay: float | Tensor
    ) -> Tensor:
        """Return by how much θ − factor·d reduces the undamped quadratic model."""
        curvature = ggn.quadratic(unflatten(d, self._parameters))
        if isinstance(decay, Tensor):
            curvature = curvature + torch.dot(decay * d, d)
        else:
            curvature = curvature + decay * torch.dot(d, d)
        return factor * torch.dot(b, d) - 0.5 * factor**2 * curvature

    def _penalty_reduction(self, before: Tensor, decay: float | Tensor) -> Tensor:
        """Return by how much the L2 penalty fell since θ was ``before``, (n,)."""
        after = flatten(self._parameters)
        if isinstance(decay, Tensor):
            return 0.5 * (torch.dot(decay * before, before) - torch.dot(decay * after, after))
        return 0.5 * decay * (torch.dot(before, before) - torch.dot(after, after))

    def _reject_unless(self, accepted: Tensor, before: Tensor) -> None:
        """Restore θ and forget the direction, unless accepted; all on the device."""
        assert self._direction is not None
        for p, old in zip(self._parameters, unflatten(before, self._parameters), strict=True):
            p.copy_(torch.where(accepted, p, old))
        self._direction = torch.where(accepted, self._direction, 0.0)


class _Buffers(Workspace):
    """The solver's vectors, and one for the products."""

    def __init__(self, like: Tensor) -> None:
        super().__init__(like)
        self.product = torch.empty_like(like)


class _DampedMatrix:
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

    def least_curvature(self, v: Tensor) -> Tensor:
        """Return ½vᵀSv, of which vᵀ(G + S)v is at least twice as much for G ⪰ 0."""
        return 0.5 * torch.dot(v * self._shift, v)


def build_fixed(model: nn.Module, loss: Loss, params: FixedDampingParams, seed: int) -> HessianFree:
    """Return ``hf`` of the registry."""
    return _build(model, loss, FixedDamping(params.damping), params)


def build_levenberg_marquardt(
    model: nn.Module, loss: Loss, params: LevenbergMarquardtParams, seed: int
) -> HessianFree:
    """Return ``hf_lm`` of the registry."""
    damping = LevenbergMarquardt(
        damping=params.damping,
        decrease=params.decrease,
        increase=params.increase,
        bounds=(params.min_damping, params.max_damping),
    )
    return _build(model, loss, damping, params)


def build_adam(model: nn.Module, loss: Loss, params: AdamDampingParams, seed: int) -> HessianFree:
    """Return ``hf_adam`` of the registry."""
    damping = AdamDamping(
        damping=params.damping,
        growth_steps=params.growth_steps,
        growth_exponent=params.growth_exponent,
        beta2=params.beta2,
        eps=params.eps,
    )
    return _build(model, loss, damping, params)


def _build(
    model: nn.Module,
    loss: Loss,
    damping: Damping,
    params: FixedDampingParams | LevenbergMarquardtParams | AdamDampingParams,
) -> HessianFree:
    return HessianFree(
        model,
        loss,
        damping,
        iterations=params.iterations,
        lr=params.lr,
        warm_start=params.warm_start,
        weight_decay=params.weight_decay,
        micro_batch=params.micro_batch,
        curvature_batch=params.curvature_batch,
        autocast=autocast_dtype(params.autocast),
        max_skipped_steps=params.max_skipped_steps,
    )
