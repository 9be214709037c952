"""Adam on estimated meta-gradients."""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from mlhf.meta.config import MetaTrainConfig
from mlhf.meta.estimators import GradientEstimator, Unroll
from mlhf.meta.learner import MetaLearner
from mlhf.meta.outer_optimizer import OuterStep


class MetaAdam:
    """Takes Adam's steps along estimated gradients.

    Each network's gradient is clipped to a multiple of the norm of its weights.

    Args:
        config: Rate and its cuts, L2, clip.
        learner: Whose weights are changed.
        estimator: Estimates each network's gradient.
        unroll: Unrolls from a state, on the next batches.
    """

    smoothing = 0.98

    def __init__(
        self,
        config: MetaTrainConfig,
        learner: MetaLearner,
        estimator: GradientEstimator,
        unroll: Unroll,
    ) -> None:
        self.estimator = estimator
        self._config, self._unroll = config, unroll
        self.adam = torch.optim.Adam(
            [p for net in learner.networks.values() for p in net.parameters()],
            lr=config.lr,
            weight_decay=config.weight_decay,
        )

    def step(self, learner: MetaLearner, iteration: int) -> OuterStep:
        estimate = self.estimator.estimate(learner, self._unroll)
        finite = self._descend(learner, estimate.gradients, iteration)
        return OuterStep(estimate.losses, estimate.stats, estimate.steps, finite)

    def lineage(self) -> dict[str, Any]:
        return {}

    def state_dict(self) -> dict[str, Any]:
        return {
            "adam": {str(k): dict(v) for k, v in self.adam.state_dict()["state"].items()},
            "estimator": self.estimator.state_dict(),
        }

    def load_state_dict(self, state: Mapping[str, Any], device: torch.device) -> None:
        groups = self.adam.state_dict()["param_groups"]
        moments = {int(k): v for k, v in state["adam"].items()}
        self.adam.load_state_dict({"state": moments, "param_groups": groups})
        self.estimator.load_state_dict(state["estimator"], device)

    def _descend(
        self, learner: MetaLearner, estimated: Mapping[str, list[Tensor]], iteration: int
    ) -> bool:
        """Take Adam's step unless a gradient is not finite; return whether it was taken."""
        config, finite = self._config, True
        for name, net in learner.networks.items():
            weights, gradients = list(net.parameters()), estimated[name]
            norm, limit = _norm(gradients), config.clip * _norm([w.detach() for w in weights])
            factor = limit / norm if config.clip and norm > limit else 1.0
            finite = finite and math.isfinite(norm)
            for w, g in zip(weights, gradients, strict=True):
                w.grad = g * factor
        if finite:
            decays = sum(iteration >= at * config.iterations for at in config.decay_at)
            self.adam.param_groups[0]["lr"] = config.lr * 0.1**decays
            self.adam.step()
        return finite


def _norm(tensors: list[Tensor]) -> float:
    return float(torch.stack([t.double().square().sum() for t in tensors]).sum().sqrt())
