"""MLHF (Chen & Lu, arXiv 1805.08462): damping and preconditioner by learned networks.

The step is the paper's algorithm 2: s = softplus(RNN_s(tanh[b, r', d'])), then from x₀ = d'
the residual r₀ = b − Ĝx₀ and P = softplus(RNN_p(tanh[b, r₀, x₀])), then a few iterations of
preconditioned conjugate gradients on Ĝ = G + diag(s + λ₀), then θ ← θ − lr·d. Here b is the
gradient, and d', r' are the last step's solution and residual.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.forward_pass import full_precision
from mlhf.curvature.ggn import GGN
from mlhf.curvature.losses import check_loss
from mlhf.curvature.microbatches import batch_curvature
from mlhf.curvature.protocol import Curvature, Loss
from mlhf.curvature.vectors import unflatten, vector_like
from mlhf.optimizers.learned.families import PAPER
from mlhf.optimizers.learned.kinds import by_kind
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint, load_weights
from mlhf.optimizers.mlhf.kernels.choose import Choice, Wanted
from mlhf.optimizers.mlhf.paper.compiled import CompiledSteps, Execution, Settings
from mlhf.optimizers.mlhf.paper.networks import CoordinateNetwork
from mlhf.optimizers.mlhf.paper.solve import (
    FLOOR,
    INDEFINITE,
    Buffers,
    MLHFState,
    PaperGGN,
    SolveStats,
    solve,
)
from mlhf.optimizers.mlhf.paper.weights import NetworkWeights
from mlhf.optimizers.mlhf.variants import MLHF
from mlhf.optimizers.options import check_autocast, check_model, check_options
from mlhf.optimizers.protocol import State, StepResult
from mlhf.optimizers.state import check_state, shapes_of
from mlhf.optimizers.step_guard import NotFinite, StepGuard, add, check, large_number
from mlhf.optimizers.torch_api.base import sum_of
from mlhf.optimizers.torch_api.gradients import Gradients
from mlhf.optimizers.torch_api.param_groups import Parameters
from mlhf.optimizers.torch_api.recorder import Pass

__all__ = ["FLOOR", "PaperMLHF", "fresh_networks"]


def fresh_networks(seed: int = 0) -> dict[str, NetworkWeights]:
    """Return untrained networks: RNN_s as ``damping``, RNN_p as ``preconditioner``.

    The damping starts at about 1, where Hessian-free steps without learning are stable.
    """
    networks = {
        "damping": NetworkWeights(seed=2 * seed),
        "preconditioner": NetworkWeights(seed=2 * seed + 1),
    }
    nn.init.constant_(networks["damping"].b3, math.log(math.expm1(1.0)))  # softplus gives 1
    return networks


class PaperMLHF(MLHF):
    """The meta-learned Hessian-free optimizer as published.

    Works alone: ``opt = PaperMLHF(model); opt.step(x, y)``. A step costs the gradient,
    ``iterations`` + 1 products of about a gradient's cost each, and both networks. The state
    is 34 numbers per parameter: d, r and two networks' states of 16.

    Args:
        model: Any module that returns a tensor, or a tuple, list or dict of tensors.
        loss: ``"cross_entropy"``, ``"mse"``, ``"binary_cross_entropy"``, or a function
            (z, y) ↦ scalar of what the model returns.
        meta_checkpoint: What the networks learned: ``"default"`` is what is shipped, a path
            names a file, None leaves them untrained.
        iterations: PCG iterations.
        lr: Factor of the step; the damping controls the step size.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        tolerance: A solve stops moving once its residual's norm is below it.
        parameters: Groups of all parameters that require a gradient; ``lr`` and ``weight_decay``
            have to be those of all groups.
        kernel: Which implementation of the networks to run; ``auto`` takes the fastest that
            can, and ``kernel_choice`` says which it is.
        compile: Whether to run the whole step as one compiled graph, on a GPU as a CUDA graph.
            The first step then takes half a minute or more. Where that is not possible, steps
            stay eager; ``path`` and ``path_reason`` say so. The model's ``forward`` may depend
            only on its input, parameters, buffers and modes. The state is the same.
        micro_batch: As for ``HessianFree``. This and the next two keep steps eager.
        curvature_batch: As for ``HessianFree``.
        autocast: As for ``HessianFree``.
        max_skipped_steps: Steps that are not finite are skipped; after so many in a row the
            next is an error. Where the direction alone is not finite, by overflow in a product,
            and gradients were not large before, the networks' states stay finite, but may be
            those after the step: they are too large to be copied in every step.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        DataError: where the meta-checkpoint cannot be read or used, or is not of this variant.
        ValueError: for an unknown loss, or an option out of range.
    """

    networks: dict[str, NetworkWeights]

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
        *,
        iterations: int = 4,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        tolerance: float = 1e-6,
        parameters: Parameters | None = None,
        kernel: Wanted = "auto",
        compile: bool = False,
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
            weight_decay=weight_decay,
            tolerance=tolerance,
            kernel=kernel,
            compile=compile,
            micro_batch=micro_batch,
            curvature_batch=curvature_batch,
        )
        self.iterations = iterations
        self.tolerance = tolerance
        self.networks = fresh_networks()
        load_weights(self.networks, meta_checkpoint, PAPER)
        self._kernel = kernel
        self._micro_batch, self._curvature_batch = micro_batch, curvature_batch
        self._autocast = autocast
        self._eager_reason = "" if compile else "compile is off"
        if compile and (micro_batch, curvature_batch, autocast) != (None, None, None):
            self._eager_reason = "no graph with micro_batch, curvature_batch or autocast"
        self._guard = StepGuard(model, max_skipped_steps)
        super().__init__(model, loss, parameters, {"lr": lr, "weight_decay": weight_decay})

    def _begin(self) -> None:
        ordered, segments = by_kind(self.model)
        if {id(p) for p in ordered} != {id(p) for p in self._parameters}:
            raise CurvatureError(
                "the variant 'paper' trains all parameters of the model that require a gradient: "
                "give all of them in parameters, and freeze the others (requires_grad_(False))"
            )
        self._parameters = list(ordered)
        self._damping = CoordinateNetwork(self.networks["damping"], segments, self._kernel)
        network = self.networks["preconditioner"]
        self._preconditioner = CoordinateNetwork(network, segments, self._kernel)
        self._recurrent_state: MLHFState | None = None
        self._buffers: Buffers | None = None
        self._size = sum(p.numel() for p in self._parameters)
        self._compiled = None
        if not self._eager_reason:
            both = self._damping, self._preconditioner
            self._compiled = CompiledSteps(self.model, self.loss_function, self._parameters, *both)
        self._gradients_are_large = False
        self._at_device_of(vector_like(self._parameters))

    @property
    def kernel_choice(self) -> Choice:
        """Which implementation of the networks runs, and why not a faster one."""
        return self._damping.choice(vector_like(self._parameters))

    @property
    def path(self) -> str:
        """How the last step ran: ``eager``, ``compiled`` or ``cuda_graph``."""
        return self._execution.path

    @property
    def path_reason(self) -> str:
        """Why it did not run faster; empty where nothing is in the way."""
        return self._execution.reason

    @property
    def skipped_steps(self) -> int:
        """How many steps were skipped so far, because they were not finite."""
        return self._guard.skipped_steps

    def loss(self, z: Any, y: Any, *, batch_size: float | None = None) -> Tensor:
        self._refuse_batch_options()
        return super().loss(z, y, batch_size=batch_size)

    def _step_on_batch(self, x: Any, y: Any, batch_size: float | None) -> StepResult:
        return self._guard.run(self._step, x, y)

    def _step_on(self, passes: Sequence[Pass], gradients: Gradients) -> StepResult:
        self._refuse_batch_options()
        return self._guard.run(
            lambda *_: self._step(None, None, sum_of(passes, gradients)),
            [each.call and each.call[:2] for each in passes],
            [each.target for each in passes],
        )

    def _matrix_at(self, z: Any, y: Any, hooked: bool) -> GGN:
        return GGN.at_outputs(
            self.model,
            self.loss_function,
            z,
            y,
            self._parameters,
            indefinite=INDEFINITE,
            hooked=hooked,
        )

    def _refuse_batch_options(self) -> None:
        options = (self._micro_batch, self._curvature_batch, self._autocast)
        if options != (None, None, None):
            raise CurvatureError(
                "micro_batch, curvature_batch and autocast are for steps that run the model "
                "themselves: leave them out, or take step(x, y)"
            )

    def _step(self, x: Any, y: Any, matrix: Curvature | None = None) -> StepResult:
        state, buffers = self._at_device_of(vector_like(self._parameters))
        # Too large to be copied in every step. A gradient that is not finite leaves it; what the
        # solve makes of a finite one is finite too, unless the numbers are very large.
        names = ("damping", "preconditioner") if self._gradients_are_large else ()
        copies = {name: getattr(state, name).clone() for name in names}
        try:
            return self._guarded_step(x, y, matrix, state, buffers)
        except NotFinite:
            for name, value in copies.items():
                getattr(state, name).copy_(value)
            raise

    def _guarded_step(
        self, x: Any, y: Any, matrix: Curvature | None, state: MLHFState, buffers: Buffers
    ) -> StepResult:
        result = None
        if self._compiled is not None and matrix is None:
            settings = Settings(self.iterations, self._one("weight_decay"), self.tolerance)
            result = self._compiled.step(x, y, state, settings)
        loss, stats = result or self._eager_step(matrix or self._curvature(x, y), state, buffers)
        with torch.no_grad():
            gradient, size = check(
                loss, {"gradient": [stats.gradient], "direction": [stats.direction]}
            )
            self._gradients_are_large = gradient >= large_number(state.d.dtype)
            update = unflatten(state.d, self._parameters)
            add(self._parameters, update, -self._one("lr"), size, loss)
        return StepResult(loss, {"damping": stats.damping, "cg_residual": stats.residual})

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
            curvature=PaperGGN,
        )

    def _one(self, name: str) -> float:
        """Return an option that all groups have in common."""
        value = self._option(name)
        if isinstance(value, list):
            raise CurvatureError(
                f"the variant 'paper' takes one {name} for all parameters, as published, and the "
                f"groups differ: {sorted(set(value))}. The default variant takes several"
            )
        return value

    def _eager_step(
        self, matrix: Curvature, state: MLHFState, buffers: Buffers
    ) -> tuple[Tensor, SolveStats]:
        with torch.no_grad(), full_precision(state.d.device):
            networks = self._damping.step, self._preconditioner.step
            settings = Settings(self.iterations, self._one("weight_decay"), self.tolerance)
            before = state.d.clone()
            stats = solve(matrix, *networks, state, buffers, **settings._asdict())
            if not bool(torch.isfinite(stats.direction)):
                state.d.copy_(before)
                state.r, buffers.r = buffers.r, state.r
            return matrix.loss, stats

    @property
    def _execution(self) -> Execution:
        if self._compiled is None:
            return Execution("eager", self._eager_reason)
        return self._compiled.execution

    def __getstate__(self) -> dict[str, Any]:
        """Leave out the buffers: a pickle does not keep which of them share memory."""
        return {**super().__getstate__(), "_buffers": None}

    def _state(self) -> State:
        own = self._recurrent_state
        weights = {name: dict(net.state_dict()) for name, net in self.networks.items()}
        return {
            "networks": weights,
            "state": None if own is None else dict(vars(own)),
            "shapes": shapes_of(self._parameters),
            "guard": self._guard.state_dict(),
        }

    def _load(self, state: State) -> None:
        check_state(self, state, ("networks", "state"), self._parameters, self.model)
        self._guard.load_state_dict(state.get("guard"))
        for name, net in self.networks.items():
            net.load_state_dict(state["networks"][name])
        saved = state["state"]
        like = vector_like(self._parameters)
        self._recurrent_state = (
            None
            if saved is None
            else MLHFState(**{name: v.to(like, copy=True) for name, v in saved.items()})
        )

    def _at_device_of(self, like: Tensor) -> tuple[MLHFState, Buffers]:
        """Return state and buffers with the device and dtype of ``like``, where networks go too.

        The state is zero at first.
        """
        if self._recurrent_state is None:
            zeros = like.new_zeros(self._size)
            self._recurrent_state = MLHFState(
                d=zeros,
                r=torch.zeros_like(zeros),
                damping=self.networks["damping"].initial_state(zeros),
                preconditioner=self.networks["preconditioner"].initial_state(zeros),
            )
        buffers = self._buffers
        if (
            buffers is None
            or buffers.product.device != like.device
            or buffers.product.dtype != like.dtype
        ):
            moved = {name: v.to(like) for name, v in vars(self._recurrent_state).items()}
            self._recurrent_state = MLHFState(**moved)
            fused = self._kernel in ("auto", "cpp")
            self._buffers = buffers = Buffers(
                self._recurrent_state.d, self._parameters, fused=fused
            )
            for network in self.networks.values():
                network.to(like)
        return self._recurrent_state, buffers
