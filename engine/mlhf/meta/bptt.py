"""Backpropagation through an unroll."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlhf.meta.estimators import MetaGradient, Unroll
from mlhf.meta.learner import MetaLearner
from mlhf.meta.replay import ExperienceReplay


class TruncatedBPTT:
    """Differentiates one unroll, from where experience replay says.

    Each network has its own loss, so each takes its own backward pass.

    Args:
        replay: Where unrolls start; what they end in is given back.
    """

    def __init__(self, replay: ExperienceReplay) -> None:
        self.replay = replay

    def estimate(self, learner: MetaLearner, unroll: Unroll) -> MetaGradient:
        start = self.replay.next()
        with torch.enable_grad():
            result = unroll(start)
        gradients: dict[str, list[Tensor]] = {}
        for i, (name, loss) in enumerate(result.losses.items()):
            gradients[name] = list(
                torch.autograd.grad(
                    loss,
                    list(learner.networks[name].parameters()),
                    retain_graph=i < len(result.losses) - 1,
                    allow_unused=True,
                    materialize_grads=True,
                )
            )
        self.replay.done(result.end, float(result.error))
        stats = {**result.stats, "depth": torch.tensor(float(start.steps))}
        losses = {name: loss.detach() for name, loss in result.losses.items()}
        return MetaGradient(gradients, losses, stats, result.end.steps - start.steps)

    def state_dict(self) -> dict[str, Any]:
        return {"starts": self.replay.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        self.replay.load_state_dict(state["starts"], device)
