"""Products and conjugate gradients that can be differentiated, for unrolls.

``mlhf.curvature.pcg`` solves the same in place; this one keeps what its derivatives need.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlhf.curvature.ggn import GGN
from mlhf.curvature.symmetric import symmetric
from mlhf.curvature.vectors import flatten, unflatten


def product(ggn: GGN, v: Tensor) -> Tensor:
    """Return Gv for a flat v, differentiable in v: the backward is a product again."""

    def flat(vs: Sequence[Tensor]) -> list[Tensor]:
        return [flatten(ggn.product(unflatten(vs[0], ggn.parameters)))]

    return symmetric(flat, [v])[0]


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
