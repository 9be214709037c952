"""The damped Gauss-Newton system (J̃ᵀJ̃ + μI)d = J̃ᵀr̃ + wθ, in the smaller of two spaces.

With the rows J̃ (n, p) of a loss's root (``loss_roots.py``), a penalty ½w‖θ‖², and μ = λ + w:

    d = (J̃ᵀJ̃ + μI)⁻¹(J̃ᵀr̃ + wθ)                             where p < n
      = (w/μ)θ + J̃ᵀ(J̃J̃ᵀ + μI)⁻¹(r̃ − (w/μ)J̃θ)               where n ≤ p

The second form does not subtract numbers of the size of 1/λ, so λ may be tiny.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from mlhf.curvature.jacobian.blocks import symmetric_product
from mlhf.curvature.jacobian.chunks import Chunk, Rows


class System(Protocol):
    """A step's linear system, solved for any damping.

    Attributes:
        trace: tr J̃ᵀJ̃, a number.
        gradient: J̃ᵀr̃ + wθ, a flat vector.
    """

    trace: float
    gradient: Tensor

    def solve(self, damping: float, extra: Tensor | None = None) -> Tensor | None:
        """Return d (p,); None where the matrix is not positive definite to rounding.

        Args:
            damping: λ.
            extra: A vector (p,) added to the right side.
        """
        ...


class SampleSpace:
    """The system by J̃J̃ᵀ, of n² numbers.

    Args:
        chunks: The rows.
        residual: r̃ (n,).
        theta: θ, flat.
        penalty: w.
        keep: Whether all rows fit in memory; else they are computed anew for each use.
    """

    def __init__(
        self,
        chunks: Sequence[Chunk],
        residual: Tensor,
        theta: Tensor,
        penalty: float,
        keep: bool = True,
    ) -> None:
        self._chunks, self._residual = chunks, residual
        self._theta, self._penalty = theta, penalty
        self._kept = [chunk.rows() for chunk in chunks] if keep or len(chunks) == 1 else None
        gradient = torch.zeros_like(theta)
        n = len(residual)
        self._gram = residual.new_empty(n, n)
        self._along = residual.new_zeros(n)  # J̃θ
        for i, chunk in enumerate(chunks):
            rows = self._rows(i)
            own = slice(chunk.start, chunk.stop)
            gradient += rows.transposed(residual[own])
            if penalty:
                self._along[own] = rows.times(theta)
            if len(chunks) == 1:
                self._gram = rows.gram()
                break
            dense = rows.dense()
            del rows
            self._gram[own, own] = symmetric_product(dense)
            for k, other in enumerate(chunks[i + 1 :], i + 1):
                block = dense @ self._rows(k).dense().T
                self._gram[own, other.start : other.stop] = block
                self._gram[other.start : other.stop, own] = block.T
        self.gradient = gradient.add_(theta, alpha=penalty)
        self.trace = float(self._gram.diagonal().sum())
        self.rows = n

    def solve(self, damping: float, extra: Tensor | None = None) -> Tensor | None:
        shift = damping + self._penalty
        kept = self._penalty / shift if shift else 0.0
        right = self._residual - kept * self._along
        if extra is not None:
            right = right - self._times(extra / shift)
        a = _solve(self._gram, shift, right)
        if a is None:
            return None
        d = self._transposed(a)
        if kept:
            d = d.add_(self._theta, alpha=kept)
        return d if extra is None else d.add_(extra, alpha=1 / shift)

    def _rows(self, i: int) -> Rows:
        return self._chunks[i].rows() if self._kept is None else self._kept[i]

    def _times(self, v: Tensor) -> Tensor:
        return torch.cat([self._rows(i).times(v) for i in range(len(self._chunks))])

    def _transposed(self, a: Tensor) -> Tensor:
        total = torch.zeros_like(self._theta)
        for i, chunk in enumerate(self._chunks):
            total += self._rows(i).transposed(a[chunk.start : chunk.stop])
        return total


class ParameterSpace:
    """The system by J̃ᵀJ̃, of p² numbers. Arguments as for ``SampleSpace``."""

    def __init__(
        self, chunks: Sequence[Chunk], residual: Tensor, theta: Tensor, penalty: float
    ) -> None:
        self._penalty, self.rows = penalty, len(residual)
        self.gradient = theta * penalty
        self._matrix = theta.new_zeros(len(theta), len(theta))
        for chunk in chunks:
            dense = chunk.rows().dense()
            self._matrix += symmetric_product(dense.T)
            self.gradient += residual[chunk.start : chunk.stop] @ dense
        self.trace = float(self._matrix.diagonal().sum())

    def solve(self, damping: float, extra: Tensor | None = None) -> Tensor | None:
        right = self.gradient if extra is None else self.gradient + extra
        return _solve(self._matrix, damping + self._penalty, right)


def _solve(matrix: Tensor, shift: float, right: Tensor) -> Tensor | None:
    """Return (A + shift·I)⁻¹b by a Cholesky factor, or None where there is none."""
    shifted = matrix.clone()
    shifted.diagonal().add_(shift)
    factor, failed = torch.linalg.cholesky_ex(shifted)
    if int(failed):
        return None
    found = torch.cholesky_solve(right.unsqueeze(1), factor).squeeze(1)
    return found if bool(torch.isfinite(found).all()) else None
