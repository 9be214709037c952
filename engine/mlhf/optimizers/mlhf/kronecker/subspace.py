"""The exact minimum of a quadratic model over a few directions.

Matrices of two or three rows are small change: kept on the host, they cost no more than numbers.
They are plain Python's, whose arithmetic is the same in every process; that of a library's
kernels may differ in the last bit, and a resumed run with it.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_RIDGE = 1e-7  # of the scaled matrix: directions may be parallel

Numbers = NDArray[np.float64]


def minimum(matrix: Numbers, right_side: Numbers) -> Numbers:
    """Return c that minimises ½cᵀMc − ⟨r, c⟩, shape (m,).

    Directions of zero curvature (such as a zero vector) get no part. NaN where M or r is not
    finite.

    Args:
        matrix: M, the curvatures between the directions, (m, m), symmetric.
        right_side: r, the directions' inner products with the gradient, (m,).
    """
    m: list[list[float]] = matrix.tolist()
    r: list[float] = right_side.tolist()
    if not all(math.isfinite(v) for row in (*m, r) for v in row):
        return np.full_like(right_side, np.nan)
    inverse = [1 / math.sqrt(row[i]) if row[i] > 0 else 0.0 for i, row in enumerate(m)]
    scaled = [
        [
            1 + _RIDGE if i == j else 0.5 * (row[j] + m[j][i]) * inverse[i] * inverse[j]
            for j in range(len(row))
        ]
        for i, row in enumerate(m)
    ]
    found = _solve(scaled, [v * w for v, w in zip(r, inverse, strict=True)])
    return np.array([v * w for v, w in zip(found, inverse, strict=True)])


def inner(a: Numbers, matrix: Numbers, b: Numbers) -> float:
    """Return aᵀMb."""
    rows: list[list[float]] = matrix.tolist()
    image = [sum(m * y for m, y in zip(row, b.tolist(), strict=True)) for row in rows]
    total: float = sum(x * y for x, y in zip(a.tolist(), image, strict=True))
    return total


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Return x of Ax = b by elimination, for A of unit diagonal; both are written over."""
    size = len(right)
    for k in range(size):
        pivot = matrix[k][k] or _RIDGE
        for i in range(k + 1, size):
            factor = matrix[i][k] / pivot
            for j in range(k, size):
                matrix[i][j] -= factor * matrix[k][j]
            right[i] -= factor * right[k]
    for k in reversed(range(size)):
        known = sum(matrix[k][j] * right[j] for j in range(k + 1, size))
        right[k] = (right[k] - known) / (matrix[k][k] or _RIDGE)
    return right


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
