"""One MLHF solve (paper, algorithm 2), the same text for the eager and the compiled step."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from mlhf.curvature.pcg import Workspace, pcg
from mlhf.curvature.protocol import Curvature
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.mlhf.paper.kernels.vectors import FusedVectors

FLOOR = 2e-5  # λ₀, added to the learned damping


class Network(Protocol):
    """Outputs (n,) of a coordinatewise network; its state (4H, n) is overwritten."""

    def __call__(self, inputs: Sequence[Tensor], state: Tensor, offset: float = 0.0) -> Tensor: ...


class MLHFState:
    """What one step leaves to the next: d, r (n,), and both networks' (16, n)."""

    def __init__(self, d: Tensor, r: Tensor, damping: Tensor, preconditioner: Tensor) -> None:
        self.d, self.r, self.damping, self.preconditioner = d, r, damping, preconditioner


class Space(Workspace):
    """The solver's vectors, one for the products, and who does the vector work.

    Args:
        like: The vectors' form.
        parameters: Whose products they are.
        fused: Whether the compiled vector work is used, where it can be.
        traced: Whether the solve is traced into a graph: a compiler then finds its own way
            of working in place, and ours would be in its way.
    """

    def __init__(
        self, like: Tensor, parameters: Sequence[Tensor], *, fused: bool, traced: bool = False
    ) -> None:
        super().__init__(like)
        self.traced = traced
        self.product = torch.empty_like(like)
        self.pieces = unflatten(self.product, parameters)
        self.directions = unflatten(self.p, parameters)  # every product but the first is with p
        self.vectors = FusedVectors() if fused and FusedVectors.can(like) else None


class Told(NamedTuple):
    """What a step tells of itself, scalars: the damping's mean, and ‖r‖/‖b‖ at the end."""

    damping: Tensor
    residual: Tensor


def solve(
    curvature: Curvature,
    damping: Network,
    preconditioner: Network,
    state: MLHFState,
    space: Space,
    *,
    iterations: int,
    weight_decay: float,
    tolerance: float,
) -> Told:
    """Solve for the step's direction, which is then ``state.d``; the whole state moves on.

    d is overwritten in place. The residual r is ``space``'s, which gets the old one's memory.
    """
    b = flatten(curvature.gradient)
    if weight_decay:
        b.add_(flatten(curvature.parameters), alpha=weight_decay)
    shift = damping([b, state.r, state.d], state.damping, FLOOR)
    mean_damping = shift.mean()
    if weight_decay:
        shift.add_(weight_decay)
    shifts = unflatten(shift, curvature.parameters)

    def product(v: Tensor) -> Tensor:
        pieces = space.directions if v is space.p else unflatten(v, curvature.parameters)
        if space.traced:
            return flatten(curvature.product(pieces)) + shift * v
        # Gv + s∘v straight into its place in one vector
        for gv, s, piece, out in zip(
            curvature.product(pieces), shifts, pieces, space.pieces, strict=True
        ):
            torch.addcmul(gv, s, piece, out=out)
        return space.product

    def inverse(r0: Tensor) -> Tensor:
        return preconditioner([b, r0, state.d], state.preconditioner)

    solved = pcg(
        product,
        b,
        state.d,
        inverse,
        iterations=iterations,
        tolerance=tolerance,
        workspace=space,
        overwrite=True,
        vectors=space.vectors,
    )
    assert solved.residual is not None
    state.r, space.r = solved.residual, state.r  # the next solve works in the old one
    tiny = torch.finfo(b.dtype).tiny
    return Told(mean_damping, solved.residual_norm / torch.linalg.vector_norm(b).clamp_min(tiny))
