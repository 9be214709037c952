"""What an entry of the list is."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bench.foreign.tasks import Batch


@dataclass(frozen=True)
class Network:
    """A network with what it learns.

    Attributes:
        make: Makes it, from torch's random state.
        batches: Makes the batches, the same at each call.
        loss: The name of a loss, or (z, y) ↦ scalar.
    """

    make: Callable[[], nn.Module]
    batches: Callable[[], list[Batch]]
    loss: Callable[[Any, Any], Tensor] | str = "cross_entropy"


class ByKeyword(nn.Module):
    """A network that takes its inputs by keyword, as one that takes a dict of them."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs: dict[str, Any]) -> Any:
        """Return the network's output."""
        return self.network(**inputs)
