"""The exact minimum of a quadratic model over a few directions.

Matrices of two or three rows are kept on the host, where they cost next to nothing. They are
computed in plain Python, whose arithmetic is the same in every process. A library's kernels may
differ in the last bit, and then a resumed run would too.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_RIDGE = 1e-7  # added to the scaled matrix's unit diagonal: directions may be parallel

Array = NDArray[np.float64]


def minimum(matrix: Array, linear_term: Array) -> Array:
    """Return c that minimises ½cᵀMc − ⟨r, c⟩, shape (m,).

    Directions without curvature (such as a zero vector) get coefficient 0. NaN where M or r is
    not finite.

    Args:
        matrix: M, the curvatures between the directions, (m, m), symmetric.
        linear_term: r, the directions' inner products with the gradient, (m,).
    """
    m: list[list[float]] = matrix.tolist()
    r: list[float] = linear_term.tolist()
    if not all(math.isfinite(v) for row in (*m, r) for v in row):
        return np.full_like(linear_term, np.nan)
    inverse = [1 / math.sqrt(row[i]) if row[i] > 0 else 0.0 for i, row in enumerate(m)]
    scaled = [
        [
            1 + _RIDGE if i == j else 0.5 * (row[j] + m[j][i]) * inverse[i] * inverse[j]
            for j in range(len(row))
        ]
        for i, row in enumerate(m)
    ]
    solution = _solve(scaled, [v * w for v, w in zip(r, inverse, strict=True)])
    return np.array([v * w for v, w in zip(solution, inverse, strict=True)])


def semidefinite(gram: Array) -> Array:
    """Return a Gram matrix without what no positive semi-definite one has, beyond rounding.

    Without curvatures below zero, that is, nor ones between two directions above the geometric
    mean of their own. Losses that are not convex have both.
    """
    m: list[list[float]] = gram.tolist()
    own = [max(row[i], 0.0) for i, row in enumerate(m)]
    changed = False
    for i, row in enumerate(m):
        for j in range(len(row)):
            bound = own[i] if i == j else math.sqrt(own[i] * own[j])
            if not abs(row[j]) <= 1.001 * bound:  # NaN stays
                row[j] = math.copysign(min(abs(row[j]), bound), row[j]) if i != j else own[i]
                changed = True
    return np.array(m) if changed else gram


def bilinear(a: Array, matrix: Array, b: Array) -> float:
    """Return aᵀMb."""
    rows: list[list[float]] = matrix.tolist()
    image = [sum(m * y for m, y in zip(row, b.tolist(), strict=True)) for row in rows]
    total: float = sum(x * y for x, y in zip(a.tolist(), image, strict=True))
    return total


def _solve(matrix: list[list[float]], right: list[float]) -> list[float]:
    """Return x of Ax = b by elimination, for A with unit diagonal; overwrites both arguments."""
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


def gram_matrix(tangents: Sequence[Sequence[Tensor]], hvps: Sequence[Sequence[Tensor]]) -> Tensor:
    """Return the matrix of ⟨Jq_i, HJq_j⟩, (m, m).

    Args:
        tangents: Jq of each direction q, one tensor for each of the network's outputs.
        hvps: HJq of each direction, likewise.
    """
    total: Tensor | None = None
    for output in range(len(tangents[0])):
        u = torch.stack([t[output].reshape(-1) for t in tangents])
        h = torch.stack([t[output].reshape(-1) for t in hvps])
        term = u.float() @ h.float().T if u.dtype.itemsize < 4 else u @ h.T
        total = term if total is None else total + term
    assert total is not None
    return total
