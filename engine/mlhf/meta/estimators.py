"""Gradients of the meta-losses: what every estimator provides."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import MetaLearner, UnrollResult

Unroll = Callable[[InnerState], UnrollResult]


@dataclass(frozen=True)
class MetaGradient:
    """An estimate of the meta-gradient.

    Attributes:
        gradients: For each network, one tensor per parameter, in the order of ``parameters()``.
        losses: The meta-losses seen, by network.
        stats: Further scalars for the curves.
        steps: Inner steps it took.
    """

    gradients: Mapping[str, list[Tensor]]
    losses: Mapping[str, Tensor]
    stats: Mapping[str, Tensor]
    steps: int


class GradientEstimator(Protocol):
    """Estimates the gradient of each network's meta-loss by its weights."""

    def estimate(self, learner: MetaLearner, unroll: Unroll) -> MetaGradient:
        """Return one estimate.

        Args:
            learner: Whose weights; they are the same afterwards.
            unroll: Unrolls from a state with the current weights, on the next batches.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None: ...
