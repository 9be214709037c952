"""The orthonormal basis U of one Kronecker factor of a block.

``rotate`` multiplies a matrix by U or Uᵀ from either side; ``refresh`` moves U to the
eigenvectors of a factor.

A coordinate that has had no gradient so far stays a basis vector itself, so that it does not
move (``eigenvectors.py``).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch
from torch import Tensor

from mlhf.optimizers.eigenvectors import eigenvectors, live_coordinates
from mlhf.optimizers.mlhf.kronecker.rotation import Rotation
from mlhf.optimizers.mlhf.kronecker.tracked import TrackedEigenbasis
from mlhf.optimizers.products import product
from mlhf.optimizers.protocol import State
from mlhf.optimizers.state import restored

_MAX_FULL = 256  # the largest factor that gets all its eigenvectors
_LEADING_DIVISOR = 4  # a larger one gets the leading quarter of them,
_MAX_LEADING = 256  # but at most so many
_MAX_FACTOR = 1024  # the largest factor that is kept in full,
_MAX_RATIO = 9  # and in how many of the other side
_MAX_TRACKED, MIN_TRACKED = 64, 16  # eigenvectors of a larger one, at most and at least
_MAX_NUMBERS = 1.5  # they and the sketch take twice so many numbers for each of the block's


class FactorBasis(Protocol):
    """An orthonormal basis U of ℝⁿ, the identity until the first ``refresh``."""

    def refresh(self, factor: Tensor) -> Tensor:
        """Move U to the eigenvectors of a factor; return the diagonal of UᵀFU, (n,).

        Args:
            factor: F, (n, n); where the basis stays the identity, its diagonal (n,). For a
                stack of bases, with the number of them as first dimension.
        """
        ...

    def rotate(
        self, matrix: Tensor, *, left: bool, transposed: bool, overwrite: bool = False
    ) -> Tensor:
        """Return UM, UᵀM, MU or MUᵀ, with the shape of M; ``overwrite``: M may be lost."""
        ...

    def numbers(self, size: int) -> int:
        """Return how many numbers the basis and its factor of this size keep, at most."""
        ...

    @property
    def state(self) -> list[object]:
        """The objects whose attributes are its state."""
        ...

    def state_dict(self) -> State: ...

    def load_state_dict(self, state: State, like: Tensor) -> None: ...


def factor_basis(
    size: int, max_dimension: int, stack: int | None = None, other: int | None = None
) -> FactorBasis:
    """Return a basis for a factor of this size; above ``max_dimension`` it is the identity.

    Args:
        size: n.
        max_dimension: The largest n with a basis.
        stack: The number of bases, one for each factor of a stack; None for a single factor.
        other: The size of the block's other side; None where it is as long.
    """
    if size > max_dimension:
        return IdentityBasis()
    if size <= _MAX_FULL:
        return Eigenbasis()  # of any number of factors
    if is_tracked(size, max_dimension, size if other is None else other, stack is not None):
        of_other = int(_MAX_NUMBERS * (size if other is None else other))
        count = min(size // _LEADING_DIVISOR, _MAX_TRACKED, max(MIN_TRACKED, of_other))
        one: Callable[[], FactorBasis] = partial(TrackedEigenbasis, count)
    else:
        one = partial(LeadingEigenbasis, min(size // _LEADING_DIVISOR, _MAX_LEADING))
    return one() if stack is None else Stack([one() for _ in range(stack)])


def is_tracked(size: int, max_dimension: int, other: int, in_stack: bool = False) -> bool:
    """Whether a side has its factor as a sketch: where all of it would cost too much to keep."""
    longest = _MAX_FULL if in_stack else min(_MAX_FACTOR, _MAX_RATIO * other)
    return max(_MAX_FULL, longest) < size <= max_dimension


class IdentityBasis:
    """U = I: the factor is kept as a diagonal and nothing is rotated."""

    def refresh(self, factor: Tensor) -> Tensor:
        return factor

    def rotate(
        self, matrix: Tensor, *, left: bool, transposed: bool, overwrite: bool = False
    ) -> Tensor:
        return matrix

    def numbers(self, size: int) -> int:
        return size

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

    @property
    def vectors(self) -> Tensor | None:
        """U, (n, n), contiguous; None while it is the identity."""
        return self._vectors

    def refresh(self, factor: Tensor) -> Tensor:
        values, vectors = eigenvectors(factor)
        self._vectors = vectors.contiguous()
        return values

    def rotate(
        self, matrix: Tensor, *, left: bool, transposed: bool, overwrite: bool = False
    ) -> Tensor:
        if self._vectors is None:
            return matrix
        vectors = self._vectors.mT if transposed else self._vectors
        pair = (vectors, matrix) if left else (matrix, vectors)
        # ``matmul`` calls it in the end.
        return torch.mm(*pair) if matrix.ndim == 2 else torch.matmul(*pair)

    def numbers(self, size: int) -> int:
        return 2 * size**2

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

    Args:
        count: How many eigenvectors, at most: fewer coordinates may have a gradient.
    """

    def __init__(self, count: int) -> None:
        self._count = count
        self._rotation = Rotation()  # to the eigenvectors
        self._image: Tensor | None = None  # the last factor times H's first columns

    def limit(self, count: int) -> None:
        """Have at most so many eigenvectors; before the first ``refresh``."""
        if self._rotation.is_identity:
            self._count = min(self._count, count)

    def refresh(self, factor: Tensor) -> Tensor:
        live = live_coordinates(factor)
        count = self._count if live is None else min(self._count, len(live))
        self._rotation.exchange(live, count)
        if live is not None and len(live) == count:  # there is no rest to leave out
            self._rotation.reflect_to(None)
            self._image = None
            order = torch.arange(len(factor), device=factor.device)
            first = self._rotation.exchanged(order)[:count]
            projected = factor[first.unsqueeze(1), first]
        else:
            projected = self._iterate(factor)
        values, vectors = eigenvectors(projected)
        self._rotation.set_vectors(vectors)
        rest = (factor.diagonal().sum() - values.sum()) / (len(factor) - count)
        return torch.cat([values, rest.expand(len(factor) - count)])

    def _iterate(self, factor: Tensor) -> Tensor:
        """Move H's first columns towards the leading eigenvectors; return the factor there."""
        image = self._initial_image(factor) if self._image is None else self._image
        self._rotation.reflect_to(self._rotation.exchanged(product(factor, image.T)))
        span = self._rotation.span
        self._image = product(factor, span.T)
        return span.T @ self._image

    def rotate(
        self, matrix: Tensor, *, left: bool, transposed: bool, overwrite: bool = False
    ) -> Tensor:
        return self._rotation.apply(matrix, left=left, transposed=transposed, overwrite=overwrite)

    def _initial_image(self, factor: Tensor) -> Tensor:
        """Return an orthonormal basis of the factor times a random matrix, (n, count)."""
        generator = torch.Generator().manual_seed(0)
        random = torch.randn(len(factor), self._count, generator=generator).to(factor)
        image: Tensor = torch.linalg.qr(factor @ random)[0]
        return image

    def numbers(self, size: int) -> int:
        return size**2 + 2 * self._count * (size + self._count)

    @property
    def state(self) -> list[object]:
        return [self, self._rotation]

    def state_dict(self) -> State:
        own = {"count": self._count, "image": self._image}
        return {**self._rotation.state_dict(), **own}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._count = int(state.get("count", self._count))  # older checkpoints have none
        self._rotation.load_state_dict(state, like)
        self._image = restored(state["image"], like)


class Stack:
    """A basis for each factor of a stack, one after the other: long sides fill the processor."""

    def __init__(self, bases: Sequence[FactorBasis]) -> None:
        self._bases = list(bases)

    def refresh(self, factor: Tensor) -> Tensor:
        return torch.stack([b.refresh(f) for b, f in zip(self._bases, factor, strict=True)])

    @property
    def tracked(self) -> list[TrackedEigenbasis]:
        """The bases that are tracked: all or none."""
        return [b for b in self._bases if isinstance(b, TrackedEigenbasis)]

    def rotate(
        self, matrix: Tensor, *, left: bool, transposed: bool, overwrite: bool = False
    ) -> Tensor:
        pairs = zip(self._bases, matrix, strict=True)
        return torch.stack([b.rotate(m, left=left, transposed=transposed) for b, m in pairs])

    def numbers(self, size: int) -> int:
        return sum(basis.numbers(size) for basis in self._bases)

    @property
    def state(self) -> list[object]:
        return [part for basis in self._bases for part in basis.state]

    def state_dict(self) -> State:
        return {"stack": [b.state_dict() for b in self._bases]}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        for basis, saved in zip(self._bases, state["stack"], strict=True):
            basis.load_state_dict(saved, like)
