"""MLHF (Chen & Lu, arXiv 1805.08462): damping and preconditioner by learned networks.

The step is the paper's algorithm 2: s = softplus(RNN_s(tanh[b, r', d'])), then from x₀ = d'
the residual r₀ = b − Ĝx₀ and P = softplus(RNN_p(tanh[b, r₀, x₀])), then a few iterations of
preconditioned conjugate gradients on Ĝ = G + diag(s + λ₀), then θ ← θ − lr·d. Here b is the
gradient, and d', r' are the last step's solution and residual.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from engine.curvature.errors import CurvatureError
from engine.curvature.ggn import GGN, Loss
from engine.mlhf.kernels.choose import Choice, Wanted
from engine.mlhf.kernels.vectors import FusedVectors
from engine.mlhf.kinds import by_kind
from engine.mlhf.meta_checkpoint import MetaCheckpoint, load_meta_checkpoint
from engine.mlhf.networks import CoordinateNetwork
from engine.mlhf.weights import NetworkWeights
from engine.optimizers.hessian_free import flatten, unflatten
from engine.optimizers.protocol import State, StepResult
from engine.pcg import Workspace, pcg

FLOOR = 2e-5  # λ₀, added to the learned damping


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


class MLHF:
    """The meta-learned Hessian-free optimizer.

    Works alone: ``opt = MLHF(model); opt.step(x, y)``. A step costs the gradient,
    ``iterations`` + 1 products of about a gradient's cost each, and both networks. The state
    is 34 numbers per parameter: d, r and two networks' states of 16.

    Args:
        model: Any module that returns one tensor.
        loss: ``"cross_entropy"``, ``"mse"``, or a function (z, y) ↦ scalar.
        meta_checkpoint: What the networks learned: ``"default"`` is what is shipped, a path
            names a file, None leaves them untrained.
        variant: ``"paper"``, the only one.
        iterations: PCG iterations.
        lr: Factor of the step; damping plays the part of the step size.
        weight_decay: L2 penalty, part of the gradient and of the curvature.
        tolerance: A solve stops moving once its residual's norm is below it.
        kernel: Which form the networks run in; ``auto`` takes the fastest that can, and
            ``kernel_choice`` says which it was.

    Raises:
        CurvatureError: where no parameter requires a gradient.
        DataError: where the meta-checkpoint cannot be read.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss = "cross_entropy",
        meta_checkpoint: str | Path | MetaCheckpoint | None = "default",
        variant: Literal["paper"] = "paper",
        *,
        iterations: int = 4,
        lr: float = 1.0,
        weight_decay: float = 0.0,
        tolerance: float = 1e-6,
        kernel: Wanted = "auto",
    ) -> None:
        if iterations < 1:
            raise ValueError("iterations must be at least 1")
        if variant != "paper":
            raise ValueError(f"unknown variant {variant!r}; known: paper")
        self.model = model
        self.loss = loss
        self.iterations = iterations
        self.lr = lr
        self.weight_decay = weight_decay
        self.tolerance = tolerance
        self.networks = fresh_networks()
        if isinstance(meta_checkpoint, str | Path):
            meta_checkpoint = load_meta_checkpoint(meta_checkpoint)
        if meta_checkpoint is not None:
            meta_checkpoint.into(self.networks)
        found, segments = by_kind(model)
        self._parameters: list[Tensor] = list(found)
        if not self._parameters:
            raise CurvatureError("the model has no parameter that requires a gradient")
        self._damping = CoordinateNetwork(self.networks["damping"], segments, kernel)
        self._preconditioner = CoordinateNetwork(self.networks["preconditioner"], segments, kernel)
        self._kernel = kernel
        self._state: _State | None = None
        self._space: _Space | None = None
        self._move(flatten([p.detach() for p in self._parameters]))

    @property
    def kernel_choice(self) -> Choice:
        """Which form of the networks runs, and why not a faster one."""
        return self._damping.choice(self._parameters[0])

    def step(self, x: Tensor, y: Tensor) -> StepResult:
        ggn = GGN(self.model, self.loss, x, y, self._parameters)
        with torch.no_grad():
            b = flatten(ggn.gradient)
            if self.weight_decay:
                b.add_(flatten(self._parameters), alpha=self.weight_decay)
            state, space = self._move(b)
            shift = self._damping.step([b, state.r, state.d], state.damping, FLOOR)
            mean_damping = shift.mean()
            if self.weight_decay:
                shift.add_(self.weight_decay)
            shifts = unflatten(shift, self._parameters)

            def product(v: Tensor) -> Tensor:
                pieces = unflatten(v, self._parameters)
                # Gv + s∘v straight into its place in one vector
                for gv, s, piece, out in zip(
                    ggn.product(pieces), shifts, pieces, space.pieces, strict=True
                ):
                    torch.addcmul(gv, s, piece, out=out)
                return space.product

            def inverse(r0: Tensor) -> Tensor:
                return self._preconditioner.step([b, r0, state.d], state.preconditioner)

            solved = pcg(
                product,
                b,
                state.d,
                inverse,
                iterations=self.iterations,
                tolerance=self.tolerance,
                workspace=space,
                overwrite=True,
                vectors=space.vectors,
            )
            assert solved.residual is not None
            state.r, space.r = solved.residual, state.r  # the next solve works in the old one
            state.d = solved.x
            torch._foreach_add_(
                self._parameters, unflatten(state.d, self._parameters), alpha=-self.lr
            )
            tiny = torch.finfo(b.dtype).tiny
            relative = solved.residual_norm / torch.linalg.vector_norm(b).clamp_min(tiny)
        return StepResult(ggn.loss, {"damping": mean_damping, "cg_residual": relative})

    def state_dict(self) -> State:
        weights = {name: dict(net.state_dict()) for name, net in self.networks.items()}
        return {"networks": weights, "state": None if self._state is None else vars(self._state)}

    def load_state_dict(self, state: State) -> None:
        for name, net in self.networks.items():
            net.load_state_dict(state["networks"][name])
        kept = state["state"]
        like = self._parameters[0]
        self._state = (
            None
            if kept is None
            else _State(**{name: v.to(like, copy=True) for name, v in kept.items()})
        )

    def _move(self, like: Tensor) -> "tuple[_State, _Space]":
        """Return the state and work space where the model is now; the state begins at zero."""
        if self._state is None:
            self._state = _State(
                d=torch.zeros_like(like),
                r=torch.zeros_like(like),
                damping=self.networks["damping"].initial_state(like),
                preconditioner=self.networks["preconditioner"].initial_state(like),
            )
        if self._space is None or self._space.product.device != like.device or self._space.product.dtype != like.dtype:  # noqa: E501  # fmt: skip
            self._space = _Space(like, self._parameters, self._kernel)
            self._state = _State(**{name: v.to(like) for name, v in vars(self._state).items()})
            for network in self.networks.values():
                network.to(like)
        return self._state, self._space


class _State:
    """What one step leaves to the next: d, r (n,), and both networks' (16, n)."""

    def __init__(self, d: Tensor, r: Tensor, damping: Tensor, preconditioner: Tensor) -> None:
        self.d, self.r, self.damping, self.preconditioner = d, r, damping, preconditioner


class _Space(Workspace):
    """The solver's vectors, one for the products, and who does the vector work."""

    def __init__(self, like: Tensor, parameters: Sequence[Tensor], kernel: Wanted) -> None:
        super().__init__(like)
        self.product = torch.empty_like(like)
        self.pieces = unflatten(self.product, parameters)
        fused = kernel in ("auto", "cpp") and FusedVectors.can(like)
        self.vectors = FusedVectors() if fused else None
