"""Products and conjugate gradients that can be differentiated, for unrolls.

``engine.pcg`` solves the same in place; this one keeps what its derivatives need.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from engine.curvature.ggn import GGN
from engine.optimizers.hessian_free import flatten, unflatten


class _Product(torch.autograd.Function):
    """v ↦ Gv. G is symmetric and constant here, so the backward is g ↦ Gg: no graph of G."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, ggn: GGN) -> Tensor:
        ctx.ggn = ggn
        return flatten(ggn.product(unflatten(v, ggn.parameters)))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (g,) = gradients
        return flatten(ctx.ggn.product(unflatten(g, ctx.ggn.parameters))), None


def product(ggn: GGN, v: Tensor) -> Tensor:
    """Return Gv for a flat v, differentiable in v."""
    out: Tensor = _Product.apply(v, ggn)  # type: ignore[no-untyped-call]
    return out


def solve(
    product: Callable[[Tensor], Tensor],
    b: Tensor,
    x: Tensor,
    r: Tensor,
    inverse: Tensor,
    *,
    iterations: int,
    tolerance: float = 1e-6,
) -> tuple[Tensor, Tensor]:
    """Preconditioned conjugate gradients (paper, algorithm 1) from x with its residual r.

    Returns:
        The solution and its residual.
    """
    tiny = torch.finfo(b.dtype).tiny
    y = inverse * r
    p = y
    ry = torch.dot(r, y)
    for i in range(iterations):
        ap = product(p)
        active = torch.linalg.vector_norm(r.detach()) >= tolerance
        alpha = torch.where(active, ry / torch.dot(p, ap).clamp_min(tiny), 0.0)
        x = torch.addcmul(x, p, alpha)
        r = torch.addcmul(r, ap, alpha, value=-1)
        if i < iterations - 1:
            y = inverse * r
            previous, ry = ry, torch.dot(r, y)
            p = torch.addcmul(y, p, ry / previous.clamp_min(tiny))
    return x, r
