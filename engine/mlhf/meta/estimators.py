"""Gradients of the meta-losses: the contract, and backpropagation through the unroll."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from mlhf.meta.learned import Learned, Unrolled
from mlhf.meta.replay import Starts
from mlhf.meta.trajectory import Point

Unroll = Callable[[Point], Unrolled]


@dataclass(frozen=True)
class MetaGradient:
    """One estimate.

    Attributes:
        gradients: For each network, one tensor per weight, in the order of ``parameters()``.
        losses: The meta-losses seen, by network.
        stats: Further scalars for the curves.
        steps: Inner steps taken for it.
    """

    gradients: Mapping[str, list[Tensor]]
    losses: Mapping[str, Tensor]
    stats: Mapping[str, Tensor]
    steps: int


class GradientEstimator(Protocol):
    """Estimates the gradient of each network's meta-loss by its weights."""

    def estimate(self, learned: Learned, unroll: Unroll) -> MetaGradient:
        """Take one estimate.

        Args:
            learned: Whose weights; they are as before afterwards.
            unroll: Unrolls from a point with the current weights, on the next batches.
        """
        ...

    def state_dict(self) -> dict[str, Any]:
        """Return the state: tensors and JSON values."""
        ...

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None: ...


class BackpropagationThroughTime:
    """Differentiates one unroll from wherever replay says.

    Each network has a loss of its own, so each takes a backward pass of its own.
    """

    def __init__(self, starts: Starts) -> None:
        self.starts = starts

    def estimate(self, learned: Learned, unroll: Unroll) -> MetaGradient:
        start = self.starts.next()
        with torch.enable_grad():
            result = unroll(start)
        gradients: dict[str, list[Tensor]] = {}
        for i, (name, loss) in enumerate(result.losses.items()):
            gradients[name] = list(
                torch.autograd.grad(
                    loss,
                    list(learned.networks[name].parameters()),
                    retain_graph=i < len(result.losses) - 1,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        self.starts.done(result.end, float(result.error))
        stats = {**result.stats, "depth": torch.tensor(float(start.steps))}
        losses = {name: loss.detach() for name, loss in result.losses.items()}
        return MetaGradient(gradients, losses, stats, result.end.steps - start.steps)

    def state_dict(self) -> dict[str, Any]:
        return {"starts": self.starts.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.starts.load_state_dict(state["starts"], device)
