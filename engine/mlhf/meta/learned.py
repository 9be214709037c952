"""What can be meta-trained: networks in groups, each group with a loss of its own."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mlhf.meta.trajectory import Bench, Point

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Unrolled:
    """The outcome of a few inner steps.

    Attributes:
        losses: Each network's meta-loss, its value right; what its gradient goes through is
            the unroll's business.
        end: Where the inner training now stands.
        error: How bad the unroll was, a scalar: what replay ranks by.
        stats: Scalars for the curves.
    """

    losses: Mapping[str, Tensor]
    end: Point
    error: Tensor
    stats: Mapping[str, Tensor]


class Learned(Protocol):
    """A learned optimizer in meta-training.

    Attributes:
        networks: Its networks by name; ``Unrolled.losses`` has the same names.
        keeps_graphs: Whether an unroll needs a network of its own for every step.
    """

    keeps_graphs: bool

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    def unroll(
        self, bench: Bench, start: Point, batches: Sequence[Batch], noise: torch.Generator
    ) -> Unrolled:
        """Take ``len(batches) - 1`` inner steps from a point; the last batch only judges.

        Draws random numbers from ``noise`` alone. Keeps a graph where gradients are enabled.
        """
        ...


def with_value(value: Tensor, gradient_of: Tensor) -> Tensor:
    """Return a scalar that has the one's value and the other's gradient."""
    return value.detach() + (gradient_of - gradient_of.detach())
