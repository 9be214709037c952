"""The orthonormal basis U of one Kronecker factor of a block.

``rotate`` multiplies a matrix by U or Uᵀ from either side; ``refresh`` moves U to the
eigenvectors of a factor.

A coordinate that has had no gradient so far stays a basis vector itself, so that it does not
move (``eigenvectors.py``).
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from mlhf.optimizers.eigenvectors import eigenvectors, live_coordinates
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
            factor: F, (n, n); where the basis stays the identity, its diagonal (n,). For a
                stack of bases, with the number of them as first dimension.
        """
        ...

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        """Return UM, UᵀM, MU or MUᵀ, with the shape of M."""
        ...

    @property
    def state(self) -> list[object]:
        """The objects whose attributes are its state."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State, like: Tensor) -> None: ...


def factor_basis(size: int, max_dimension: int, stack: int | None = None) -> FactorBasis:
    """Return a basis for a factor of this size; above ``max_dimension`` it is the identity.

    Args:
        size: n.
        max_dimension: The largest n with a basis.
        stack: The number of bases, one for each factor of a stack; None for a single factor.
    """
    if size > max_dimension:
        return IdentityBasis()
    if size <= _MAX_FULL:
        return Eigenbasis()  # of any number of factors
    count = min(size // _LEADING_DIVISOR, _MAX_LEADING)
    if stack is None:
        return LeadingEigenbasis(count)
    return Stack([LeadingEigenbasis(count) for _ in range(stack)])


class IdentityBasis:
    """U = I: the factor is kept as a diagonal and nothing is rotated."""

    def refresh(self, factor: Tensor) -> Tensor:
        return factor

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        return matrix

    @property
    def state(self) -> list[object]:
        return [self]

    def state_dict(self) -> State:
        return {}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        pass


class Eigenbasis:
    """All eigenvectors of the factor, or of each factor of a stack."""

    def __init__(self) -> None:
        self._vectors: Tensor | None = None

    def refresh(self, factor: Tensor) -> Tensor:
        values, vectors = eigenvectors(factor)
        self._vectors = vectors.contiguous()
        return values

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        if self._vectors is None:
            return matrix
        vectors = self._vectors.mT if transposed else self._vectors
        result: Tensor = vectors @ matrix if left else matrix @ vectors
        return result

    @property
    def state(self) -> list[object]:
        return [self]

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

    U = Π H diag(V, I), where H is a product of Householder reflections, one for each
    eigenvector, and V holds the Ritz vectors in the span of H's first columns. The reflections
    mix the first coordinates with the others. Π exchanges coordinates so that those are ones
    with a gradient; it is the identity where all have one. U is never formed as an n × n
    matrix.

    Args:
        count: How many eigenvectors, at most: fewer coordinates may have a gradient.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._exchanged: Tensor | None = None  # Π, (2, k): pairs of coordinates
        self._reflections: tuple[Tensor, Tensor] | None = None  # H, as ``torch.geqrf`` gives it
        self._vectors: Tensor | None = None  # V
        self._image: Tensor | None = None  # the last factor times H's first columns

    def refresh(self, factor: Tensor) -> Tensor:
        live = live_coordinates(factor)
        count = self._count if live is None else min(self._count, len(live))
        self._exchanged = None if live is None else _exchanges(live, count)
        if live is not None and len(live) == count:  # there is no rest to leave out
            self._reflections = self._image = None
            first = self._exchange(torch.arange(len(factor), device=factor.device))[:count]
            projected = factor[first.unsqueeze(1), first]
        else:
            projected = self._iterate(factor, count)
        values, vectors = eigenvectors(projected)
        self._vectors = vectors.contiguous()
        rest = (factor.diagonal().sum() - values.sum()) / (len(factor) - count)
        return torch.cat([values, rest.expand(len(factor) - count)])

    def _iterate(self, factor: Tensor, count: int) -> Tensor:
        """Move H's first columns towards the leading eigenvectors; return the factor there."""
        image = self._initial_image(factor) if self._image is None else self._image
        self._reflections = torch.geqrf(self._exchange(product(factor, image.T)))
        span = self._exchange(torch.linalg.householder_product(*self._reflections))
        self._image = product(factor, span.T)
        return span.T @ self._image

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        if self._vectors is None:
            return matrix
        vectors_first = left != transposed
        if vectors_first or self._exchanged is not None or self._reflections is None:
            matrix = matrix.clone()
        if not vectors_first:
            matrix = self._reflect(self._exchange(matrix, left), left, transposed)
        vectors = self._vectors.T if transposed else self._vectors
        count = len(vectors)
        leading = matrix[:count] if left else matrix[:, :count]
        leading.copy_(vectors @ leading if left else leading @ vectors)
        if not vectors_first:
            return matrix
        return self._exchange(self._reflect(matrix, left, transposed), left)

    def _exchange(self, tensor: Tensor, left: bool = True) -> Tensor:
        """Multiply by Π from the left (rows), or the right, in place; it is its own inverse."""
        if self._exchanged is not None:
            to, source = self._exchanged.flatten(), self._exchanged.flip(0).flatten()
            if left:
                tensor[to] = tensor[source]
            else:
                tensor[:, to] = tensor[:, source]
        return tensor

    def _reflect(self, matrix: Tensor, left: bool, transposed: bool) -> Tensor:
        """Return HM, HᵀM, MH or MHᵀ."""
        if self._reflections is None:
            return matrix
        result: Tensor = torch.ormqr(*self._reflections, matrix, left, transposed)
        return result

    def _initial_image(self, factor: Tensor) -> Tensor:
        """Return an orthonormal basis of the factor times a random matrix, (n, count)."""
        generator = torch.Generator().manual_seed(0)
        random = torch.randn(len(factor), self._count, generator=generator).to(factor)
        image: Tensor = torch.linalg.qr(factor @ random)[0]
        return image

    @property
    def state(self) -> list[object]:
        return [self]

    def state_dict(self) -> State:
        reflections = None if self._reflections is None else list(self._reflections)
        return {
            "exchanged": self._exchanged,
            "reflections": reflections,
            "vectors": self._vectors,
            "image": self._image,
        }

    def load_state_dict(self, state: State, like: Tensor) -> None:
        exchanged = state.get("exchanged")  # older checkpoints have none
        self._exchanged = None if exchanged is None else exchanged.to(like.device, copy=True)
        saved = restored_list(state["reflections"], like)
        self._reflections = None if saved is None else (saved[0], saved[1])
        self._vectors = restored(state["vectors"], like)
        self._image = restored(state["image"], like)


class Stack:
    """A basis for each factor of a stack, one after the other: long sides fill the processor."""

    def __init__(self, bases: Sequence[FactorBasis]) -> None:
        self._bases = list(bases)

    def refresh(self, factor: Tensor) -> Tensor:
        return torch.stack([b.refresh(f) for b, f in zip(self._bases, factor, strict=True)])

    def rotate(self, matrix: Tensor, *, left: bool, transposed: bool) -> Tensor:
        pairs = zip(self._bases, matrix, strict=True)
        return torch.stack([b.rotate(m, left=left, transposed=transposed) for b, m in pairs])

    @property
    def state(self) -> list[object]:
        return [part for basis in self._bases for part in basis.state]

    def state_dict(self) -> State:
        return {"stack": [b.state_dict() for b in self._bases]}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        for basis, saved in zip(self._bases, state["stack"], strict=True):
            basis.load_state_dict(saved, like)


def _exchanges(live: Tensor, count: int) -> Tensor | None:
    """Return pairs of coordinates, (2, k), whose exchange makes the first ``count`` live."""
    first = torch.ones(count, dtype=torch.bool, device=live.device)
    first[live[live < count]] = False
    dead = first.nonzero().squeeze(1)
    return torch.stack([dead, live[live >= count][: len(dead)]]) if len(dead) else None
