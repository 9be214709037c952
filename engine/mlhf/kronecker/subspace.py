"""The exact minimum of a quadratic model over a few directions."""

from collections.abc import Sequence

import torch
from torch import Tensor

_RIDGE = 1e-7  # of the scaled matrix: directions may be parallel


def minimum(matrix: Tensor, right_side: Tensor) -> Tensor:
    """Return c that minimises ½cᵀMc − ⟨r, c⟩, shape (m,), in float64.

    Directions of zero curvature (such as a zero vector) get no part.

    Args:
        matrix: M, the curvatures between the directions, (m, m), symmetric.
        right_side: r, the directions' inner products with the gradient, (m,).
    """
    m, r = matrix.double(), right_side.double()
    scale = m.diagonal().clamp_min(0).sqrt()
    inverse = torch.where(scale > 0, 1 / scale, 0.0)
    scaled = m * torch.outer(inverse, inverse)
    scaled = 0.5 * (scaled + scaled.T)
    scaled.diagonal().copy_(torch.full_like(scale, 1 + _RIDGE))
    # Without a check, which would wait for the device.
    found, _ = torch.linalg.solve_ex(scaled, r * inverse)
    result: Tensor = found * inverse
    return result


def curvatures(tangents: Sequence[Sequence[Tensor]], pulled: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return ⟨Jq_i, H Jq_j⟩, (m, m), from Jq and HJq of each direction, one tensor an output."""
    total: Tensor | None = None
    for output in range(len(tangents[0])):
        u = torch.stack([t[output].reshape(-1) for t in tangents])
        h = torch.stack([t[output].reshape(-1) for t in pulled])
        part = u.float() @ h.float().T if u.dtype.itemsize < 4 else u @ h.T
        total = part if total is None else total + part
    assert total is not None
    return total
