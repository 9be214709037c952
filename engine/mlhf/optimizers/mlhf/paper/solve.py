"""One MLHF solve (paper, algorithm 2), the same code for the eager and the compiled step."""

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mlhf.curvature.ggn import GGN, Indefinite
from mlhf.curvature.pcg import MakesVectors, TorchVectors, Workspace, pcg
from mlhf.curvature.protocol import Curvature
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.mlhf.kernels.vectors import FusedVectors

FLOOR = 2e-5  # λ₀, added to the learned damping

# The learned damping may become small: of a loss that is not convex all curvature counts.
INDEFINITE: Indefinite = "magnitude"
PaperGGN = partial(GGN, indefinite=INDEFINITE)


class Network(Protocol):
    """Outputs (n,) of a coordinatewise network; its state (4H, n) is overwritten."""

    def __call__(self, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0) -> Tensor: ...


class MLHFState:
    """What one step passes to the next: d and r (n,), and both networks' states (16, n)."""

    def __init__(self, d: Tensor, r: Tensor, damping: Tensor, preconditioner: Tensor) -> None:
        self.d, self.r, self.damping, self.preconditioner = d, r, damping, preconditioner


class Buffers(Workspace):
    """The solver's vectors, one for the products, and the fused vector operations.

    Args:
        like: A vector (n,) of their size, dtype and device.
        parameters: θ, whose shapes the products have.
        fused: Whether fused vector operations are used, where possible.
        traced: Whether the solve is traced into a graph. A compiler plans memory itself, and
            operations in place would only hinder it.
    """

    def __init__(
        self, like: Tensor, parameters: Sequence[Tensor], *, fused: bool, traced: bool = False
    ) -> None:
        super().__init__(like)
        # Views of one vector are pieces of all parameters only where these have its dtype.
        self.views = not traced and all(p.dtype == like.dtype for p in parameters)
        self.product = torch.empty_like(like)
        self.pieces = unflatten(self.product, parameters)
        self.directions = unflatten(self.p, parameters)  # every product but the first is with p
        self.vectors: MakesVectors = (
            FusedVectors if fused and FusedVectors.can(like) else TorchVectors
        )


class SolveStats(NamedTuple):
    """Statistics of a solve, scalars.

    Attributes:
        damping: The mean of the learned damping.
        residual: ‖r‖/‖b‖ at the end.
        gradient: ‖b‖.
        direction: ‖d‖.
    """

    damping: Tensor
    residual: Tensor
    gradient: Tensor
    direction: Tensor


def solve(
    curvature: Curvature,
    damping: Network,
    preconditioner: Network,
    state: MLHFState,
    buffers: Buffers,
    *,
    iterations: int,
    weight_decay: float,
    tolerance: float,
) -> SolveStats:
    """Solve for the step's direction, which becomes ``state.d``; the whole state is updated.

    d is overwritten in place. The residual r swaps memory with ``buffers``. Where loss or b are
    not finite, both networks' states stay; where r₀ is not, the preconditioner's does; d and r
    are NaN then.
    """
    b = flatten(curvature.gradient)
    if weight_decay:
        b.add_(flatten(curvature.parameters), alpha=weight_decay)
    size = torch.linalg.vector_norm(b)
    b = _nan_unless_finite(b, size + curvature.loss)
    shift = damping([b, state.r, state.d], state.damping, FLOOR)
    mean_damping = shift.mean()
    if weight_decay:
        shift.add_(weight_decay)
    shifts = unflatten(shift, curvature.parameters)

    def product(v: Tensor) -> Tensor:
        if buffers.views and v is buffers.p:
            pieces = buffers.directions
        else:
            pieces = unflatten(v, curvature.parameters)
        if not buffers.views:
            return flatten(curvature.product(pieces)) + shift * v
        # Gv + s∘v, written directly into one vector
        for gv, s, piece, out in zip(
            curvature.product(pieces), shifts, pieces, buffers.pieces, strict=True
        ):
            torch.addcmul(gv, s, piece, out=out)
        return buffers.product

    def inverse(r0: Tensor) -> Tensor:
        return preconditioner([_nan_unless_finite(b, r0), r0, state.d], state.preconditioner)

    solved = pcg(
        product,
        b,
        state.d,
        inverse,
        iterations=iterations,
        atol=tolerance,
        workspace=buffers,
        overwrite=True,
        vectors=buffers.vectors,
    )
    assert solved.residual is not None
    state.r, buffers.r = solved.residual, state.r  # the next solve works in the old one
    tiny = torch.finfo(b.dtype).tiny
    return SolveStats(
        mean_damping,
        solved.residual_norm / size.clamp_min(tiny),
        size,
        torch.linalg.vector_norm(solved.x),
    )


def _nan_unless_finite(v: Tensor, needed: Tensor) -> Tensor:
    """Return v, all NaN where ``needed`` has an element that is not finite.

    NaN in a network's first input keeps its state, without waiting for the device.
    """
    finite = torch.isfinite(torch.linalg.vector_norm(needed))
    return torch.where(finite, v, torch.nan)
