"""What computes rows of a Jacobian offers: a forward pass, and the rows in chunks of samples."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor


class Unsuitable(Exception):  # noqa: N818
    """Rows of this network cannot be computed in this way."""


class Rows(Protocol):
    """Rows of a matrix: ``JacobianRows``, or what is made of them."""

    def dense(self) -> Tensor: ...

    def gram(self) -> Tensor: ...

    def transposed(self, a: Tensor) -> Tensor: ...

    def times(self, v: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Chunk:
    """Some rows.

    Attributes:
        start: The first.
        stop: One beyond the last.
        rows: Computes them.
    """

    start: int
    stop: int
    rows: Callable[[], Rows]


class Jacobian(Protocol):
    """Computes the rows of SJ for one network, a batch at a time.

    Attributes:
        factored: Whether the rows of a batch are small factors, which need no bound.
    """

    factored: bool

    def forward(self, x: Any) -> Tensor:
        """Return z = model(x) without graph, as a training step would: once for each batch."""
        ...

    def chunks(self, root: Tensor, most: int) -> list[Chunk]:
        """Return the rows of SJ at the last ``forward``, in order.

        Args:
            root: S, shape (n, k, C).
            most: Rows in a chunk.
        """
        ...

    def clear(self) -> None:
        """Forget the batch."""
        ...
