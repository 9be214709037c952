"""The exact minimum of a quadratic model over a few directions.

Matrices of two or three rows are small change: kept on the host, they cost no more than numbers.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_RIDGE = 1e-7  # of the scaled matrix: directions may be parallel


def minimum(matrix: NDArray[np.float64], right_side: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return c that minimises ½cᵀMc − ⟨r, c⟩, shape (m,).

    Directions of zero curvature (such as a zero vector) get no part. NaN where M or r is not
    finite.

    Args:
        matrix: M, the curvatures between the directions, (m, m), symmetric.
        right_side: r, the directions' inner products with the gradient, (m,).
    """
    if not (np.isfinite(matrix).all() and np.isfinite(right_side).all()):
        return np.full_like(right_side, np.nan)
    scale = np.sqrt(np.maximum(np.diagonal(matrix), 0))
    inverse = np.divide(1, scale, out=np.zeros_like(scale), where=scale > 0)
    scaled = matrix * np.outer(inverse, inverse)
    scaled = 0.5 * (scaled + scaled.T)
    np.fill_diagonal(scaled, 1 + _RIDGE)
    return inverse * np.linalg.solve(scaled, right_side * inverse)


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
