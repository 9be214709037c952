"""A design in which every run tells about every weight: a Hadamard matrix and its negative."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

_PRIME = 47  # Paley's construction gives a Hadamard matrix of one row more


def hadamard() -> NDArray[np.int64]:
    """Return signs, (48, 47), whose columns are orthogonal (Paley 1933)."""
    squares = {i * i % _PRIME for i in range(1, _PRIME)}
    signs = np.array([0] + [1 if i in squares else -1 for i in range(1, _PRIME)])
    at = np.arange(_PRIME)
    matrix = np.ones((_PRIME + 1, _PRIME + 1), dtype=np.int64)
    matrix[1:, 0] = -1
    matrix[1:, 1:] = signs[(at[:, None] - at[None, :]) % _PRIME]
    matrix[at + 1, at + 1] = 1
    normal: NDArray[np.int64] = (matrix * matrix[:, :1])[:, 1:]
    return normal


def slopes(design: NDArray[np.int64], halves: Sequence[float], step: float) -> NDArray[np.float64]:
    """Return the slope a unit of each column.

    Args:
        design: Signs, (rows, columns).
        halves: Half of what each row's value is above that of its negative; what is even in the
            changes, such as a curvature, is not in it.
        step: By how much a sign changes a value.
    """
    found: NDArray[np.float64] = design.T @ np.array(halves) / (len(design) * step)
    return found
