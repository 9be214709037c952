"""The orthonormal basis U of one Kronecker factor of a block.

``rotate`` multiplies a matrix by U or Uᵀ from either side; ``refresh`` moves U to the
eigenvectors of a factor.
"""

from typing import Protocol

import torch
from torch import Tensor

from mlhf.optimizers.products import product
from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored, restored_list

_MAX_FULL = 256  # the largest factor that gets all its eigenvectors
_LEADING_DIVISOR = 4  # a larger one gets the leading quarter of them,
_MAX_LEADING = 256  # but at most so many


class FactorBasis(Protocol):
    """An orthonormal basis U of ℝⁿ, the identity until the first ``refresh``."""

    def refresh(self, factor: Tensor) -> Tensor:
        """Move U to the eigenvectors of a factor; return the diagonal of UᵀFU, (n,).

        Args:
            factor: F, (n, n); where the basis stays the identity, its diagonal (n,).
        """
        ...

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        """Return UM, UᵀM, MU or MUᵀ, with the shape of M."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State, like: Tensor) -> None: ...


def factor_basis(size: int, max_dimension: int) -> FactorBasis:
    """Return a basis for a factor of this size; above ``max_dimension`` it is the identity."""
    if size > max_dimension:
        return IdentityBasis()
    if size <= _MAX_FULL:
        return Eigenbasis()
    return LeadingEigenbasis(min(size // _LEADING_DIVISOR, _MAX_LEADING))


class IdentityBasis:
    """U = I: the factor is kept as a diagonal and nothing is rotated."""

    def refresh(self, factor: Tensor) -> Tensor:
        return factor

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        return matrix

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        pass


class Eigenbasis:
    """All eigenvectors of the factor."""

    def __init__(self) -> None:
        self._vectors: Tensor | None = None

    def refresh(self, factor: Tensor) -> Tensor:
        values, vectors = _eigenvectors(factor)
        self._vectors = vectors.contiguous()
        return values

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        if self._vectors is None:
            return matrix
        vectors = self._vectors.T if transposed else self._vectors
        result: Tensor = vectors @ matrix if left else matrix @ vectors
        return result

    def state_dict(self) -> State:
        return {"vectors": self._vectors}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._vectors = restored(state["vectors"], like)


class LeadingEigenbasis:
    """The leading eigenvectors, completed by an arbitrary orthonormal basis of the rest.

    A few batches cannot tell the small eigenvalues apart, so each direction of the rest gets
    their mean. Two steps of orthogonal iteration with a Rayleigh-Ritz projection (Golub & Van
    Loan 2013, section 8.2.4) cost a fraction of a full eigendecomposition. The first of the
    two was done by the previous refresh, on the factor of that time: its product was needed
    there for the projection. A single step in all can make for a bad start of a run.

    U = H diag(V, I), where H is a product of ``count`` Householder reflections and V holds the
    Ritz vectors in the span of H's first columns. U is never formed as an n × n matrix.

    Args:
        count: How many eigenvectors.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._reflections: tuple[Tensor, Tensor] | None = None  # H, as ``torch.geqrf`` gives it
        self._vectors: Tensor | None = None  # V
        self._image: Tensor | None = None  # the last factor times H's first columns

    def refresh(self, factor: Tensor) -> Tensor:
        size, count = len(factor), self._count
        image = self._initial_image(factor) if self._image is None else self._image
        self._reflections = torch.geqrf(product(factor, image.T))
        span = torch.linalg.householder_product(*self._reflections)
        self._image = product(factor, span.T)
        projected = span.T @ self._image
        values, vectors = _eigenvectors(projected)
        self._vectors = vectors.contiguous()
        rest = (factor.diagonal().sum() - values.sum()) / (size - count)
        return torch.cat([values, rest.expand(size - count)])

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        if self._reflections is None or self._vectors is None:
            return matrix
        vectors_first = left != transposed
        matrix = matrix.clone() if vectors_first else self._reflect(matrix, left, transposed)
        vectors = self._vectors.T if transposed else self._vectors
        leading = matrix[: self._count] if left else matrix[:, : self._count]
        leading.copy_(vectors @ leading if left else leading @ vectors)
        return self._reflect(matrix, left, transposed) if vectors_first else matrix

    def _reflect(self, matrix: Tensor, left: bool, transposed: bool) -> Tensor:
        """Return HM, HᵀM, MH or MHᵀ."""
        assert self._reflections is not None
        result: Tensor = torch.ormqr(*self._reflections, matrix, left, transposed)
        return result

    def _initial_image(self, factor: Tensor) -> Tensor:
        """Return an orthonormal basis of the factor times a random matrix, (n, count)."""
        generator = torch.Generator().manual_seed(0)
        random = torch.randn(len(factor), self._count, generator=generator).to(factor)
        image: Tensor = torch.linalg.qr(factor @ random)[0]
        return image

    def state_dict(self) -> State:
        reflections = None if self._reflections is None else list(self._reflections)
        return {"reflections": reflections, "vectors": self._vectors, "image": self._image}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        saved = restored_list(state["reflections"], like)
        self._reflections = None if saved is None else (saved[0], saved[1])
        self._vectors = restored(state["vectors"], like)
        self._image = restored(state["image"], like)


def _eigenvectors(matrix: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors; NaN eigenvalues for a matrix that is not finite.

    The training loop then sees a loss that is not finite, as with any other optimizer.
    """
    try:
        values, vectors = torch.linalg.eigh(matrix)
    except torch.linalg.LinAlgError:  # type: ignore[attr-defined]
        if not bool(torch.isfinite(matrix).all()):
            return matrix.new_full((len(matrix),), torch.nan), torch.eye(len(matrix)).to(matrix)
        values, vectors = torch.linalg.eigh(matrix.double())
    return values.to(matrix), vectors.to(matrix)
