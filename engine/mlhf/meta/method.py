"""How a learned optimizer's weights are changed: the contract the meta-training loop works by."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mlhf.meta.learned import Learned


@dataclass(frozen=True)
class Advance:
    """What one iteration brought.

    Attributes:
        losses: The meta-losses seen, by network; none where there is nothing to say yet.
        stats: Further scalars for the curves.
        steps: Inner steps taken.
        finite: Whether what was found could be used.
    """

    losses: Mapping[str, Tensor]
    stats: Mapping[str, Tensor]
    steps: int
    finite: bool = True


class Method(Protocol):
    """Changes the weights, an iteration at a time.

    Attributes:
        smoothing: Of the meta-losses in the summary.
    """

    smoothing: float

    def advance(self, learned: Learned, iteration: int) -> Advance:
        """Do one iteration; between two, the networks have the weights to be kept."""
        ...

    def lineage(self) -> dict[str, Any]:
        """Return what the lineage should say beyond the configuration."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None: ...
