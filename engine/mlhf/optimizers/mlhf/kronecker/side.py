"""One side of a block: the orthonormal basis U that its matrices are turned into.

``apply`` multiplies a matrix by U or Uᵀ, from the left or the right; ``turn`` brings U to a
factor's eigenvectors and returns the factor's diagonal there.
"""

from typing import Protocol

import torch
from torch import Tensor

from mlhf.optimizers.products import product
from mlhf.optimizers.protocol import State

_EXACT = 256  # the longest side with all its eigenvectors
_PART = 4  # of a longer one, every fourth direction is an eigenvector
_MOST = 256  # eigenvectors of a longer one


class Side(Protocol):
    """A basis of n directions."""

    def turn(self, factor: Tensor) -> Tensor:
        """Turn to a factor's eigenvectors; return its diagonal there, (n,).

        Args:
            factor: (n, n), or its diagonal (n,) for a side that is not turned.
        """
        ...

    def apply(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        """Return UM, UᵀM, MU or MUᵀ, of the shape of M."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State, like: Tensor) -> None: ...


def side_of(size: int, longest: int) -> Side:
    """Return a basis for a side of that size, left as it is if longer than ``longest``."""
    if size > longest:
        return Unturned()
    return Eigenbasis() if size <= _EXACT else LeadingEigenbasis(min(size // _PART, _MOST))


class Unturned:
    """U = I."""

    def turn(self, factor: Tensor) -> Tensor:
        return factor

    def apply(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        return matrix

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        pass


class Eigenbasis:
    """All eigenvectors."""

    def __init__(self) -> None:
        self._vectors: Tensor | None = None

    def turn(self, factor: Tensor) -> Tensor:
        values, vectors = _eigenvectors(factor)
        self._vectors = vectors.contiguous()
        return values

    def apply(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        if self._vectors is None:
            return matrix
        vectors = self._vectors.T if transposed else self._vectors
        result: Tensor = vectors @ matrix if left else matrix @ vectors
        return result

    def state_dict(self) -> State:
        return {"vectors": self._vectors}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._vectors = _restored(state["vectors"], like)


class LeadingEigenbasis:
    """The leading eigenvectors, and any orthonormal basis of what they leave.

    What they leave is told apart by no eigenvalue that a few batches could know: each of its
    directions gets their mean. Two steps of orthogonal iteration a turn, with Rayleigh and Ritz
    within (Golub & Van Loan 2013, section 8.2.4), are several times cheaper than all
    eigenvectors. The first of them was done by the turn before, with its own factor, whose
    product Rayleigh and Ritz need; with one step in all a run may begin badly. U = H diag(V, I),
    with H a product of ``count`` reflections and V the Ritz vectors within their first columns:
    n × n numbers are never written.

    Args:
        count: How many eigenvectors.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._reflections: tuple[Tensor, Tensor] | None = None
        self._vectors: Tensor | None = None
        self._image: Tensor | None = None  # the last factor times what it was turned to

    def turn(self, factor: Tensor) -> Tensor:
        size, count = len(factor), self._count
        image = self._first(factor) if self._image is None else self._image
        self._reflections = torch.geqrf(product(factor, image.T))
        span = torch.linalg.householder_product(*self._reflections)
        self._image = product(factor, span.T)
        ritz = span.T @ self._image
        found, vectors = _eigenvectors(ritz)
        self._vectors = vectors.contiguous()
        rest = (factor.diagonal().sum() - found.sum()) / (size - count)
        return torch.cat([found, rest.expand(size - count)])

    def apply(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        if self._reflections is None or self._vectors is None:
            return matrix
        vectors_first = left != transposed
        matrix = matrix.clone() if vectors_first else self._reflect(matrix, left, transposed)
        vectors = self._vectors.T if transposed else self._vectors
        part = matrix[: self._count] if left else matrix[:, : self._count]
        part.copy_(vectors @ part if left else part @ vectors)
        return self._reflect(matrix, left, transposed) if vectors_first else matrix

    def _reflect(self, matrix: Tensor, left: bool, transposed: bool) -> Tensor:
        """Return HM, HᵀM, MH or MHᵀ."""
        assert self._reflections is not None
        result: Tensor = torch.ormqr(*self._reflections, matrix, left, transposed)
        return result

    def _first(self, factor: Tensor) -> Tensor:
        """Return the factor's image of anything, orthonormal, (n, count)."""
        generator = torch.Generator().manual_seed(0)
        anything = torch.randn(len(factor), self._count, generator=generator).to(factor)
        image: Tensor = torch.linalg.qr(factor @ anything)[0]
        return image

    def state_dict(self) -> State:
        kept = None if self._reflections is None else list(self._reflections)
        return {"reflections": kept, "vectors": self._vectors, "image": self._image}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        kept = state["reflections"]
        self._reflections = None
        if kept is not None:
            reflectors, factors = (t.to(like, copy=True) for t in kept)
            self._reflections = reflectors, factors
        self._vectors = _restored(state["vectors"], like)
        self._image = _restored(state["image"], like)


def _eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors; NaN for a matrix that is not finite.

    Whoever trains then sees a loss that is not finite, as with any other optimizer.
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if not bool(torch.isfinite(matrix).all()):
            return matrix.new_full((len(matrix),), torch.nan), torch.eye(len(matrix)).to(matrix)
        values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(matrix), vectors.to(matrix)


def _restored(saved: Tensor | None, like: Tensor) -> Tensor | None:
    return None if saved is None else saved.to(like, copy=True)
