"""What can be meta-trained: a learned optimizer's networks, each with its own meta-loss."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from mlhf.meta.inner_state import InnerState
from mlhf.meta.task_models import TaskModels

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class UnrollResult:
    """The result of a few inner steps.

    Attributes:
        losses: Each network's meta-loss, a scalar. The learner chooses what its gradient
            flows through.
        end: The inner state after the last step.
        error: How badly the unroll went, a scalar; experience replay ranks by it.
        stats: Scalars for the curves.
    """

    losses: Mapping[str, Tensor]
    end: InnerState
    error: Tensor
    stats: Mapping[str, Tensor]


class MetaLearner(Protocol):
    """A learned optimizer in meta-training.

    Attributes:
        networks: Its networks by name; ``UnrollResult.losses`` has the same names.
        keeps_graphs: Whether an unroll needs a separate copy of the network for every step.
    """

    keeps_graphs: bool

    @property
    def networks(self) -> Mapping[str, nn.Module]: ...

    def unroll(
        self,
        models: TaskModels,
        start: InnerState,
        batches: Sequence[Batch],
        noise: torch.Generator,
    ) -> UnrollResult:
        """Take ``len(batches) - 1`` inner steps.

        Keeps a graph if gradients are enabled.

        Args:
            models: The task's networks.
            start: Where the steps begin.
            batches: One per step; the last only evaluates the last step.
            noise: The only source of random numbers.
        """
        ...


def with_value(value: Tensor, gradient_of: Tensor) -> Tensor:
    """Return a scalar with the value of the first and the gradient of the second."""
    return value.detach() + (gradient_of - gradient_of.detach())
