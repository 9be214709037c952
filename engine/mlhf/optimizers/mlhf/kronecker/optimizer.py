"""MLHF's default variant: a quadratic model minimised exactly, in a Kronecker eigenbasis.

On each batch, with gradient b and Gauss-Newton matrix G, in a basis U where G is nearly
diagonal (``basis.py``):

    s = λ_k (√v̂ + 1e-5 g)       damping, v̂ the running mean of b² in the basis, and g the
                                root mean square of the loss's gradient at the outputs
    P = 1 / (D + s)              preconditioner, D the diagonal of the factored G
    d = argmin ½dᵀ(G + S)d − bᵀd over span{Pb, d', Pr₁, …}
    θ ← θ − d

with d' the last step and r_i the residual after i directions. The minimum is exact for the
batch's own G, by one tangent pass Jq for each direction. So there is no learning rate, and the
coefficient of d' takes the place of momentum (Martens & Grosse 2015, sections 6.4 and 7, choose
both like this for K-FAC; the damping and its basis differ). Two networks (``controller.py``)
correct λ, D and the step by what the last steps measured.

Where the loss has no noise and its rows fit in memory, the subspace is the whole space
(``whole_space.py``): for residuals, and where every step has all samples (``repeated_batch.py``).
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import forget_casts, full_precision
from mlhf.curvature.ggn import GGN
from mlhf.curvature.losses import check_loss
from mlhf.curvature.protocol import FactoredCurvature, Loss
from mlhf.curvature.residuals import Residuals
from mlhf.curvature.vectors import unflatten, vector_like
from mlhf.optimizers.gauss_newton.memory_plan import MEMORY_BYTES
from mlhf.optimizers.kfac.calls import LayerCalls
from mlhf.optimizers.learned.families import KRONECKER
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_weights
from mlhf.optimizers.mlhf.kronecker.advance import advance
from mlhf.optimizers.mlhf.kronecker.average import RunningAverage
from mlhf.optimizers.mlhf.kronecker.basis import Basis, rows_of
from mlhf.optimizers.mlhf.kronecker.batch_sizes import BatchSizes
from mlhf.optimizers.mlhf.kronecker.controller import (
    DampingNetwork,
    FactorNetwork,
    FeatureEMA,
    StepNetwork,
)
from mlhf.optimizers.mlhf.kronecker.damping import Damping, Scales
from mlhf.optimizers.mlhf.kronecker.exact_steps import ExactSteps
from mlhf.optimizers.mlhf.kronecker.judge import StepJudge
from mlhf.optimizers.mlhf.kronecker.penalty import penalty
from mlhf.optimizers.mlhf.kronecker.preconditioning import precondition
from mlhf.optimizers.mlhf.kronecker.quadratic_model import Direction, combine
from mlhf.optimizers.mlhf.kronecker.schedule import Schedule
from mlhf.optimizers.mlhf.kronecker.solver import LOW_LOSS, Solver
from mlhf.optimizers.mlhf.kronecker.step_extension import StepExtension
from mlhf.optimizers.mlhf.variants import AveragingMLHF
from mlhf.optimizers.options import check_autocast, check_model, check_options
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.reevaluate import BatchReevaluator
from mlhf.optimizers.state import check_state, restored, restored_list, shapes_of
from mlhf.optimizers.step_guard import (
    NotFinite,
    StepGuard,
    add,
    check,
    large_number,
    norm,
)
from mlhf.optimizers.torch_api.base import sum_of
from mlhf.optimizers.torch_api.gradients import Gradients
from mlhf.optimizers.torch_api.param_groups import Parameters
from mlhf.optimizers.torch_api.recorder import Pass

_NOISELESS_ITERATIONS = 12  # at least, where a batch's own minimum is worth reaching
_USUAL_LR = 1e3  # with a smaller one no step of usual coefficients makes parameters infinite
_VECTORS = 5  # of the parameters' size, in the state
_FIXED_BYTES = 8192  # of it: the networks, a generator's state, means
_STATE = ("steps", "average", "moment", "last", "solver", "basis", "networks")


def fresh_networks() -> dict[str, FactorNetwork]:
    """Return untrained networks: all weights are zero, all factors 1."""
    return {"damping": DampingNetwork(), "step": StepNetwork()}


class KroneckerMLHF(AveragingMLHF):
    """Steps to the minimum of the batch's quadratic model over a few directions.

    A step costs the gradient and, once the loss is low, each third one a tangent pass (half a
    gradient). A step that solves costs a tangent pass for each direction, and a backward pass
    for each after the second. Updates of the basis come on top, and become rare.

    The weights are noisy, as after any steps of full length. So the result is their running
    average over a constant fraction of the steps so far: ``eval_mode`` puts it into the model,
    ``train_mode`` puts back the weights that steps start from.

    Works alone: ``opt = MLHF(model); opt.step(x, y)``, and ``opt.eval_mode()`` at the end.

    Args:
        model: Any module whose loss has a Gauss-Newton matrix (``GGN``).
        loss: A loss's name, or a function (z, y) ↦ scalar of what the model returns.
        meta_checkpoint: What the networks learned: ``"default"`` for the shipped file, the
            path of another, or None to leave them untrained.
        iterations: Preconditioned directions besides the last step; twelve at least for
            ``Residuals``.
        solve_every: Most steps from one solve over all directions to the next; fewer at first.
            The steps between reuse its coefficients (``solver.py``).
        lr: Factor of the step.
        average: The fraction of the steps so far over which the result is averaged; 0 for no
            average.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        damping: λ₀ of λ_k = λ₀ (1 + k/T)^½.
        growth_steps: T.
        parameters: Which parameters to train, by default all that require a gradient: tensors,
            pairs of a name and a tensor, or groups, dicts with ``params`` and ``lr``,
            ``weight_decay`` and ``rotate``: whether their blocks are rotated.
        decay: Of the running means that the basis is computed from.
        update_every: Most steps between two updates of those means; fewer at first.
        refresh_every: Most steps between two updates of the eigenvectors; fewer at first.
        samples: How many samples of a batch a layer's factors are computed from, at random.
        max_dimension: The largest factor that is kept in full; of a larger one the diagonal is.
        position_damping: Whether the damping of what is spread over positions is lowered while it
            is small against what it is added to.
        autocast: The dtype of forward and backward passes under autocast.
        memory_bytes: Of the rows and the matrix by which ``Residuals`` are solved for in all
            directions; where they need more, the subspace is the usual one.
        seed: Of the random signs by which the trace of the loss's Hessian is estimated, and of
            the samples.
        max_skipped_steps: Steps that are not finite are skipped; after so many in a row the
            next is an error.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        DataError: where the meta-checkpoint cannot be read or used, or is not of this variant.
        ValueError: for an unknown loss, or an option out of range.
    """

    networks: dict[str, FactorNetwork]

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
        *,
        iterations: int = 1,
        solve_every: int = 15,
        lr: float = 1.0,
        average: float = 0.03,
        weight_decay: float = 0.0,
        damping: float = 30.0,
        growth_steps: float = 100.0,
        parameters: Parameters | None = None,
        decay: float = 0.95,
        update_every: int = 10,
        refresh_every: int = 40,
        samples: int = 32,
        max_dimension: int = 4608,
        position_damping: bool = True,
        autocast: torch.dtype | None = None,
        memory_bytes: int = MEMORY_BYTES,
        seed: int = 0,
        max_skipped_steps: int = 10,
    ) -> None:
        check_model(model)
        check_loss(loss)
        check_autocast(autocast)
        check_options(
            iterations=iterations,
            solve_every=solve_every,
            lr=lr,
            average=average,
            weight_decay=weight_decay,
            damping=damping,
            growth_steps=growth_steps,
            decay=decay,
            update_every=update_every,
            refresh_every=refresh_every,
            samples=samples,
            max_dimension=max_dimension,
            memory_bytes=memory_bytes,
            seed=seed,
        )
        self._memory_bytes = memory_bytes
        self.damping, self.growth_steps = damping, growth_steps
        self.networks = fresh_networks()
        load_weights(self.networks, meta_checkpoint, KRONECKER)
        self._fraction = average
        self._new_basis = partial(
            Basis, decay=decay, samples=samples, max_dimension=max_dimension, seed=seed
        )
        self._iterations, self._solve_every = iterations, solve_every
        self._update_every, self._refresh_every = update_every, refresh_every
        self._autocast, self._position_damping = autocast, position_damping
        self._guard = StepGuard(model, max_skipped_steps, self._guarded_state)
        defaults = {"lr": lr, "weight_decay": weight_decay, "rotate": True}
        super().__init__(model, loss, parameters, defaults)

    def _begin(self) -> None:
        self._unrotated = self._not_rotated()
        self._average = RunningAverage(self._parameters, self._fraction)
        self._basis = self._new_basis(
            self.model, self._parameters, unrotated={id(p) for p in self._unrotated}
        )
        self._features = FeatureEMA()
        self._judge = StepJudge() if isinstance(self.model, Residuals) else None
        self._exact = ExactSteps(
            *(self.model, self.loss_function, self._parameters, self._memory_bytes),
            autocast=self._autocast is not None,
        )
        iterations, every = self._iterations, self._solve_every
        if self._judge is not None:
            iterations, every = max(iterations, _NOISELESS_ITERATIONS), 1
        self._solver = Solver(self._basis, self._features, iterations, every)
        self._extension = StepExtension()
        self._steps = 0
        self._batch_sizes = BatchSizes()
        self._schedule = Schedule(self._update_every, self._refresh_every)
        self._damping = Damping()
        self._last_step: Direction | None = None  # d'

    def _not_rotated(self) -> list[Tensor]:
        return [p for group in self.param_groups if not group["rotate"] for p in group["params"]]

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    @property
    def state_bytes(self) -> int:
        """How much memory the optimizer's state takes from the first step on, at most.

        Known before it, so that a network can be refused in time. Five vectors of the parameters'
        size (D, v, d' twice, θ̄), and each block's factors and bases. What a stack of matrices
        takes is known once it was used.
        """
        vectors = _VECTORS * sum(p.numel() for p in self._parameters)
        size: int = vector_like(self._parameters).itemsize
        return size * (vectors + self._basis.numbers) + _FIXED_BYTES

    def _guarded_state(self) -> list[object]:
        of_steps = [self._batch_sizes, self._schedule, self._damping, self._features]
        own = [self, *of_steps, self._solver, self._extension]
        judge = [] if self._judge is None else [self._judge]
        return [*own, *judge, *self._exact.state, *self._basis.state]

    def _refuse_eval_mode(self, what: str) -> None:
        if self._average.in_model:
            raise CurvatureError(
                f"{what} in eval_mode would be lost: the model holds the averaged weights. Call "
                "train_mode() before the next step"
            )

    def _check(self) -> None:
        super()._check()
        if {id(p) for p in self._not_rotated()} != {id(p) for p in self._unrotated}:
            raise CurvatureError(
                "rotate was changed in a parameter group, and the bases are made for what it was: "
                "make a new optimizer"
            )

    def _step_on_batch(self, x: Any, y: Any, batch_size: float | None) -> StepResult:
        return self._guard.run(partial(self._guarded_step, batch_size=batch_size), x, y)

    def _layers(self) -> list[LayerCalls]:
        return self._basis.layers

    def _layers_due(self) -> bool:
        return self._steps >= self._schedule.next_update

    def _step_on(self, passes: Sequence[Pass], gradients: Gradients) -> StepResult:
        def step(_: Any, __: Any) -> StepResult:
            size = sum(
                rows_of(self.loss_function, each.matrix.output) if each.size is None else each.size
                for each in passes
            )
            fraction = self._batch_sizes.fraction(size)
            recorded = next((each for each in passes if each.calls is not None), passes[0])
            due = self._layers_due() and 2 * fraction > 1
            if recorded.calls is None and not self._steps and self._basis.layers:
                raise CurvatureError(
                    "no layer of the model ran in the pass that the loss is of, or hooks on its "
                    "modules did not run: call the model that the optimizer was made for, not a "
                    "copy or a compiled one"
                )
            with torch.no_grad(), full_precision(self._parameters[0].device):
                if recorded.calls is not None and due:
                    self._basis.put(recorded.calls)
                matrix = sum_of(passes, gradients)
                due = due and recorded.calls is not None
                x = recorded.call.args[0] if recorded.call and recorded.call.args else None
                self._update_basis(recorded.matrix, due, matrix.total, x)
                return self._step(matrix, fraction)

        inputs = [each.call and each.call[:2] for each in passes]
        return self._guard.run(step, inputs, [each.target for each in passes])

    def _guarded_step(self, x: Any, y: Any, batch_size: float | None) -> StepResult:
        fraction = 1.0
        update_due = False
        reevaluator = None
        if self._exact.wanted(x, y, self._steps):
            device = self._parameters[0].device
            looked = BatchReevaluator(self.model, device, self._autocast)
            result = self._exact_step(x, y, batch_size, looked)
            if result is not None:
                return result
            reevaluator = None if self._judge is None else looked

        with ExitStack() as recording:

            def edges(z: Any) -> list[GradientEdge]:
                nonlocal fraction, update_due
                recording.close()  # the backward pass may run parts of the forward pass again
                fraction = self._batch_sizes.fraction(
                    rows_of(self.loss_function, z) if batch_size is None else batch_size
                )
                update_due = self._layers_due() and 2 * fraction > 1
                if update_due:
                    return self._basis.edges
                self._basis.clear()
                return []

            if self._layers_due():
                recording.enter_context(self._basis.recording())
            ggn = GGN(
                self.model,
                self.loss_function,
                x,
                y,
                self._parameters,
                autocast=self._autocast,
                edges=edges,
            )
        with torch.no_grad(), full_precision(self._parameters[0].device):
            self._update_basis(ggn, update_due, x=x)
            if reevaluator is None:
                return self._step(ggn, fraction)
            return self._step(ggn, fraction, partial(reevaluator.loss, self.loss_function, x, y))

    def _exact_step(
        self, x: Any, y: Any, batch_size: float | None, reevaluator: BatchReevaluator
    ) -> StepResult | None:
        """Take the step over all directions; None where that cannot be."""

        def fraction(rows: int) -> float:
            return self._batch_sizes.fraction(rows if batch_size is None else batch_size)

        with full_precision(self._parameters[0].device):
            lr, decay = self._option("lr"), self._option("weight_decay")
            result = self._exact.step(x, y, reevaluator, lr, decay, fraction)
        if result is not None:
            self._last_step = None
            self._steps += 1
            with torch.no_grad():
                self._average.add(self._steps)
        return result

    def _update_basis(
        self, ggn: GGN, update_due: bool, multiple: float = 1.0, x: Any = None
    ) -> None:
        """Update the running means and the eigenvectors where due: ever less often."""
        if update_due:
            self._basis.update(ggn, multiple, x)
            self._basis.clear()
            self._schedule.updated(self._steps, tracked=self._basis.is_tracked)
        if self._steps >= self._schedule.next_refresh:
            self._basis.refresh()
            if self._last_step is not None:
                in_parameters = self._last_step.in_parameters
                rotated = self._basis.rotate(unflatten(in_parameters, self._parameters))
                self._last_step = Direction(rotated, in_parameters)
            self._schedule.refreshed(self._steps, tracked=self._basis.is_tracked)

    def _step(
        self,
        ggn: FactoredCurvature,
        fraction: float,
        reevaluated: Callable[[], Tensor] | None = None,
    ) -> StepResult:
        basis = self._basis
        lr, decay = self._option("lr"), self._option("weight_decay")
        basis.see(ggn.gradient, decay)
        penalized = penalty(decay, self._parameters)
        features = self._features.features()
        by_kind = self.networks["damping"].factors(features)
        on_diagonal, on_step, on_momentum = self.networks["step"].factors(features)
        scale = self._scale(judged=reevaluated is not None)
        scales = Scales(
            *(self._steps, basis.loss_scale, fraction, on_diagonal),
            decay=0.0 if isinstance(decay, list) else decay,
        )
        b, damped, first, decays = precondition(
            *(basis, self._damping, ggn.gradient, self._parameters, decay),
            *(self._segments(scale, by_kind), scales),
        )
        last = self._last_step or Direction(torch.zeros_like(b), torch.zeros_like(b))
        solved = self._solver.solve(*(ggn, b, damped, first, last, penalized, self._steps, decays))
        if solved is None or not np.isfinite(solved[1]).all():
            check(ggn.loss, {"gradient": ggn.gradient})
            raise NotFinite("direction", ggn.loss)
        directions, coefficients, model = solved
        if self._judge is None:
            self._extension.see(model)
            # Near interpolation a few samples dominate each batch's curvature, and longer steps
            # throw the others back.
            if self._features.loss_reduction() < LOW_LOSS:
                on_step *= self._extension.factor
        stats = {
            "damping": scale * sum(by_kind) / len(by_kind),
            "momentum": float(coefficients[1]),
            "step_factor": on_step,
        }
        coefficients = coefficients * (on_step * fraction)
        self._extension.applied = on_step * fraction
        coefficients[1] *= on_momentum
        large = not np.abs(coefficients).max() < large_number(b.dtype)
        self._steps += 1
        if not large and reevaluated is None and not isinstance(lr, list) and lr < _USUAL_LR:
            moved = advance(
                *(self._parameters, self._average, coefficients, directions, lr, self._steps)
            )
            if moved is not None:
                self._last_step = moved
                return StepResult(ggn.loss, stats)
        self._last_step = combine(coefficients, directions)
        step = unflatten(self._last_step.in_parameters, self._parameters)
        size = norm(step) if large else 1.0  # next to nothing, then, for ``add``
        if isinstance(lr, list):
            step, size, lr = list(torch._foreach_mul(step, lr)), size * max(lr), 1.0
        before = None if reevaluated is None else [p.clone() for p in self._parameters]
        add(self._parameters, step, -lr, size, ggn.loss)
        if before is not None:
            assert reevaluated is not None
            assert self._judge is not None
            change, penalty_after = ggn.loss - reevaluated(), penalty(decay, self._parameters)
            if penalized is not None and penalty_after is not None:
                change = change + penalized - penalty_after
            if not self._judge.accepts(float(change), model.reduction(coefficients)):
                torch._foreach_copy_(self._parameters, before)
                self._last_step = None
        self._average.add(self._steps)
        return StepResult(ggn.loss, stats)

    def _scale(self, judged: bool) -> float:
        """Return λ_k; where the loss is looked at after each step, by what was found there."""
        if judged and self._judge is not None:
            return self.damping * self._judge.factor
        growth: float = (1 + self._steps / self.growth_steps) ** 0.5
        return self.damping * growth

    def _segments(self, scale: float, by_kind: Sequence[float]) -> list[tuple[int, float]]:
        """Return the size of each of the basis's segments, and the factor of its damping."""
        positions = self._position_damping
        return [
            (seg.size, scale * by_kind[seg.kind] * (seg.damping_factor if positions else 1.0))
            for seg in self._basis.segments
        ]

    def eval_mode(self) -> None:
        """Put the averaged weights into the model; batch norm's statistics are not theirs."""
        self._average.swap_in()
        forget_casts()

    def train_mode(self) -> None:
        """Put the weights that steps start from back into the model."""
        self._average.swap_out()
        forget_casts()

    def _state(self) -> State:
        return {
            "shapes": shapes_of(self._parameters),
            "guard": self._guard.state_dict(),
            "steps": self._steps,
            "recent_sizes": self._batch_sizes.state_dict(),
            "average": self._average.state_dict(),
            "next_update": self._schedule.next_update,
            "next_refresh": self._schedule.next_refresh,
            "moment": self._damping.second_moment,
            "last": None if self._last_step is None else list(self._last_step),
            "solver": self._solver.state_dict(),
            "extension": self._extension.state_dict(),
            "basis": self._basis.state_dict(),
            "memory": self._features.state_dict(),
            "judge": None if self._judge is None else self._judge.state_dict(),
            **self._exact.state_dict(),
            "networks": {name: dict(net.state_dict()) for name, net in self.networks.items()},
        }

    def _load(self, state: State) -> None:
        like = vector_like(self._parameters)
        check_state(self, state, _STATE, self._parameters, self.model)
        self._guard.load_state_dict(state.get("guard"))
        self._steps = int(state["steps"])
        # Older states have the largest batch's length, of its first axis.
        self._batch_sizes.load_state_dict(state.get("recent_sizes", []))
        self._average.load_state_dict(state["average"])
        self._schedule.next_update = int(state["next_update"])
        self._schedule.next_refresh = int(state["next_refresh"])
        self._damping.second_moment = restored(state["moment"], like)
        self._solver.load_state_dict(state["solver"])
        if state.get("extension") is not None:  # of no older state
            self._extension.load_state_dict(state["extension"])
        last = restored_list(state["last"], like)
        self._last_step = None if last is None else Direction(*last)
        self._basis.load_state_dict(state["basis"])
        self._features.load_state_dict(state["memory"])
        if self._judge is not None and state.get("judge") is not None:
            self._judge.load_state_dict(state["judge"])
        self._exact.load_state_dict(state)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
