"""How a learned optimizer's weights are changed: what the meta-training loop relies on."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mlhf.meta.learner import MetaLearner


@dataclass(frozen=True)
class OuterStep:
    """The result of one iteration.

    Attributes:
        losses: The meta-losses seen, by network; empty while there are none yet.
        stats: Further scalars for the curves.
        steps: Inner steps taken.
        finite: Whether the result could be used.
    """

    losses: Mapping[str, Tensor]
    stats: Mapping[str, Tensor]
    steps: int
    finite: bool = True


class OuterOptimizer(Protocol):
    """Changes the weights, an iteration at a time.

    Attributes:
        smoothing: Decay of the running mean of the meta-losses that the summary shows.
    """

    smoothing: float

    def step(self, learner: MetaLearner, iteration: int) -> OuterStep:
        """Do one iteration. Afterwards the networks have the weights to keep."""
        ...

    def lineage(self) -> dict[str, Any]:
        """Return what the lineage says besides the configuration."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None: ...
