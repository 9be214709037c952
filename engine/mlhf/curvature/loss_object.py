"""What a loss with options is to the optimizers: its derivatives, and what it says of itself."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor


class LossAt(NamedTuple):
    """A loss at one output z, with its derivatives in z, all without graph.

    Attributes:
        value: ℓ(z, y), a scalar.
        gradient: ∂ℓ/∂z, shaped like z.
        hessian_product: u ↦ (∂²ℓ/∂z²)u, shaped like z.
        convex: Whether ℓ is known to be convex in z.
        linear: Whether ℓ is linear in z.
        leaves: What ℓ depends on beside z, as tensors with a gradient.
    """

    value: Tensor
    gradient: Tensor
    hessian_product: Callable[[Tensor], Tensor]
    convex: bool = True
    linear: bool = False
    leaves: Sequence[Tensor] = ()


class LossObject(ABC):
    """A loss (z, y) ↦ scalar that is convex in all that the model returns.

    It is a function for autograd like any other; its convexity is taken on its word, so that
    nobody looks for negative curvature.
    """

    @abstractmethod
    def __call__(self, z: Any, y: Any) -> Tensor:
        """Return ℓ(z, y), with its graph."""

    def part_weights(self, y: Any, parts: Sequence[slice]) -> list[float] | None:
        """Return w with ℓ(batch) = Σ_k w_k ℓ(part k); None where that has to be measured.

        Args:
            y: The batch's target.
            parts: The parts, which make up the batch, in order.

        Raises:
            CurvatureError: where there are no such weights.
        """
        return None


class TensorLoss(LossObject):
    """A loss of one tensor, with its derivatives and a root of its Hessian H in closed form."""

    @abstractmethod
    def at(self, z: Tensor, y: Any) -> LossAt:
        """Return the loss at z with its derivatives in z."""

    @abstractmethod
    def rows(self, z: Tensor) -> int:
        """Return over how many rows, samples or positions, the loss of this output is a mean."""

    @abstractmethod
    def sampled_root(self, z: Tensor, y: Any, generator: torch.Generator) -> Tensor:
        """Return g like z, zero in the mean, with E[ggᵀ] = H on blocks of a row.

        Args:
            generator: On the CPU, wherever z is.
        """

    @abstractmethod
    def exact_root(self, z: Tensor, y: Any) -> Iterator[Tensor]:
        """Yield g like z, one for each output of a row, with Σ ggᵀ = H on blocks of a row."""
