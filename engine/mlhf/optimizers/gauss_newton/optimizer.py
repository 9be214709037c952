"""Gauss-Newton steps by a dense factor, with damping and length that adapt.

    d = (J̃ᵀJ̃ + λI)⁻¹J̃ᵀr̃,  λ = c·tr J̃ᵀJ̃,  θ ← θ − t·d

J̃ are the rows of J times a root of the loss's Hessian, so J̃ᵀJ̃ is the Gauss-Newton matrix and
J̃ᵀr̃ the gradient. The system is solved in the smaller of the spaces of samples and parameters.
Length t and damping c follow the loss (``damped_steps.py``).
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import forget_casts, full_precision
from mlhf.curvature.ggn import GGN
from mlhf.curvature.jacobian.chunks import Chunk, Jacobian
from mlhf.curvature.loss_roots import loss_root
from mlhf.curvature.losses import check_loss
from mlhf.curvature.metric import MetricRoot, MetricRows
from mlhf.curvature.microbatches import count_samples
from mlhf.curvature.protocol import Loss
from mlhf.curvature.residuals import Residuals
from mlhf.curvature.vectors import flatten, vector_like
from mlhf.optimizers.gauss_newton.damped_steps import LEAST_SQUARES, NATURAL, DampedSteps
from mlhf.optimizers.gauss_newton.iterative import IterativeSystem
from mlhf.optimizers.gauss_newton.memory_plan import MEMORY_BYTES, VECTORS, too_little
from mlhf.optimizers.gauss_newton.rows import ChosenRows
from mlhf.optimizers.gauss_newton.systems import ParameterSpace, SampleSpace, System
from mlhf.optimizers.options import check_model, check_options
from mlhf.optimizers.params import GaussNewtonParams
from mlhf.optimizers.preconditions import TrainedModel
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.reevaluate import BatchReevaluator
from mlhf.optimizers.state import check_state, copied, shapes_of
from mlhf.optimizers.step_guard import NotFinite, StepGuard, check


class GaussNewton(DampedSteps):
    """Damped Gauss-Newton steps for least squares, and for any loss with a positive Hessian.

    For networks of up to some ten thousand parameters, or batches of a few thousand rows: the
    residuals of differential equations, regression surrogates. There it reaches errors that
    gradient methods do not. No option needs to be set.

        opt = GaussNewton(model)                      # model(x) against y, squared
        opt.step(x, y)
        opt = GaussNewton(Residuals(network, poisson))  # residuals of a differential equation
        opt.step(points)

    Rows are computed from layers' inputs, with a backward pass for each output, or by
    ``torch.func``, and compared with an exact tangent pass on the first batch. Beyond
    ``memory_bytes`` they are computed in blocks. Where neither n² nor p² numbers fit, or where
    samples mix (batch norm), conjugate gradients solve with a sketch of the matrix.

    On small batches with noise (classification, say) a full step fits the batch and not the
    data: there take ``MLHF``.

    Args:
        model: Any module that returns a tensor, or ``Residuals``.
        loss: As for ``GGN``. By default that of ``Residuals``, else ``"mse"``.
        metric: A function of (z, y) like a loss, whose Hessian takes the place of the loss's:
            natural gradients. The loss need only be once differentiable, and may mix the
            samples of a batch, as the energy of a quantum state does.
        damping: c at first; by default 1e-11 in float64, 1e-5 in float32.
        lr: Factor of the step.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        parameters: Which parameters to train, by default all that require a gradient.
        memory_bytes: A bound on what rows and matrices take (``memory_plan``).
        seed: Of the sketch.
        max_skipped_steps: Steps that are not finite are skipped; after so many in a row the
            next is an error.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        ValueError: for an unknown loss, or an option out of range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | None = None,
        *,
        metric: Loss | None = None,
        damping: float | None = None,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        parameters: Sequence[Tensor] | None = None,
        memory_bytes: int = MEMORY_BYTES,
        seed: int = 0,
        max_skipped_steps: int = 10,
    ) -> None:
        check_model(model)
        if loss is None:
            loss = model.loss if isinstance(model, Residuals) else "mse"
        check_loss(loss)
        check_options(lr=lr, weight_decay=weight_decay, seed=seed, memory_bytes=memory_bytes)
        if damping is not None:
            check_options(damping=damping)
        self.model, self.loss = model, loss
        self._trained = TrainedModel(model, parameters)
        rule = LEAST_SQUARES if metric is None else NATURAL
        super().__init__(self._trained.parameters, lr, weight_decay, damping, rule)
        if metric is not None:
            check_loss(metric)
        self.metric = metric
        # With a metric, the rows of J itself.
        rooted = loss if metric is None else _half_square
        self._rows = ChosenRows(model, rooted, self._parameters, memory_bytes)
        self._memory_bytes = memory_bytes
        self._seed, self._steps = seed, 0
        self._guard = StepGuard(model, max_skipped_steps, [self])

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    def step(self, x: Any, y: Any = None) -> StepResult:
        """Take one step on the batch (x, y).

        Raises:
            CurvatureError: where the loss has no Gauss-Newton matrix, or its rows exceed the
                memory that is allowed.
        """
        self._trained.check(self)
        result = self._guard.run(self._step, x, y)
        forget_casts()
        return result

    def _step(self, x: Any, y: Any) -> StepResult:
        device = self._parameters[0].device
        with full_precision(device):
            reevaluator = BatchReevaluator(self.model, device)
            jacobian = self._rows.get(x, y)
            try:
                if self.metric is not None:
                    if jacobian is None:
                        raise self._refusal(count_samples(x))
                    loss, system = self._by_metric(jacobian, x, y)
                elif jacobian is None:
                    loss, system = self._by_products(x, y)
                else:
                    loss, system = self._rows.system(jacobian, x, y, self.weight_decay)
                with torch.no_grad():
                    square = torch.dot(system.gradient, system.gradient)
                    check(loss, {"gradient": [square]})
                    if not math.isfinite(system.trace):
                        raise NotFinite("gradient", loss)
                    evaluate = partial(reevaluator.loss, self.loss, x, y)
                    stats = self._advance(system, evaluate, loss)
            finally:
                if jacobian is not None:
                    jacobian.clear()
        self._steps += 1
        return StepResult(loss, stats)

    def _advance(
        self, system: System, evaluate: Callable[[], Tensor], loss: Tensor
    ) -> dict[str, float]:
        """Move θ by the system's solution; return what is told of the step."""
        length = self._search(system, evaluate, loss)
        return {"damping": self._scale(system), "step_length": length}

    def _by_metric(self, jacobian: Jacobian, x: Any, y: Any) -> tuple[Tensor, System]:
        assert self.metric is not None
        z = jacobian.forward(x)
        at = MetricRoot(self.loss, self.metric, z, y)
        identity = loss_root(_half_square, z, None)
        assert identity is not None
        (chunk,) = jacobian.chunks(identity.root, z.numel())
        count = len(at.residual)
        plan = self._rows.plan(z.numel())
        if plan is None or plan.block < z.numel():
            raise self._refusal(z.numel())
        with torch.no_grad():
            rows = MetricRows(chunk.rows(), at.root)
            kind = (
                SampleSpace
                if count <= sum(p.numel() for p in self._parameters)
                else (ParameterSpace)
            )
            theta = flatten(self._parameters)
            system = kind([Chunk(0, count, lambda: rows)], at.residual, theta, self.weight_decay)
        return at.value, system

    def _refusal(self, rows: int) -> CurvatureError:
        count = sum(p.numel() for p in self._parameters)
        return CurvatureError(
            f"natural gradients of {rows:,} outputs and {count:,} parameters exceed "
            f"memory_bytes={self._memory_bytes:,}: take fewer samples or raise it, or take mlhf "
            "(mlhf.MLHF), whose metric is that of the loss"
        )

    def _by_products(self, x: Any, y: Any) -> tuple[Tensor, System]:
        like = vector_like(self._parameters)
        count = sum(p.numel() for p in self._parameters)
        if VECTORS * count * like.dtype.itemsize > self._memory_bytes:
            raise CurvatureError(too_little(count, like.dtype.itemsize, self._memory_bytes))
        ggn = GGN(self.model, self.loss, x, y, self._parameters)
        generator = torch.Generator().manual_seed(self._seed + self._steps)
        with torch.no_grad():
            check(ggn.loss, {"gradient": ggn.gradient})
            return ggn.loss, IterativeSystem(ggn, self._parameters, self.weight_decay, generator)

    @copied
    def state_dict(self) -> State:
        return {
            "damping": self._damping,
            "steps": self._steps,
            "shapes": shapes_of(self._parameters),
            "guard": self._guard.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        check_state(self, state, ("damping", "steps"), self._parameters, self.model)
        self._guard.load_state_dict(state.get("guard"))
        self._damping = None if state["damping"] is None else float(state["damping"])
        self._steps = int(state["steps"])


def _half_square(z: Tensor, y: Any) -> Tensor:
    return 0.5 * z.square().sum()


def build(model: nn.Module, loss: Loss, params: GaussNewtonParams, seed: int) -> GaussNewton:
    """Return ``gauss_newton`` of the registry."""
    return GaussNewton(
        model,
        loss,
        damping=params.damping,
        lr=params.lr,
        weight_decay=params.weight_decay,
        memory_bytes=params.memory_bytes,
        seed=seed,
        max_skipped_steps=params.max_skipped_steps,
    )
