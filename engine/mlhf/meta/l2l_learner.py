"""Unrolls of L2L: the meta-loss is the sum of the losses after each update.

As in Andrychowicz et al. (2016), the gradients that the rule takes as inputs are constants, but
θ is differentiated: each update moves all later θ. So the sum's gradient flows through
⟨sg(∇ℓ(θ_t)), θ_t⟩, without second derivatives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import Batch, UnrollResult, with_value
from mlhf.meta.task_models import TaskModels
from mlhf.optimizers.l2l import LSTMUpdate, UpdateRule


class L2LLearner:
    """L2L in meta-training.

    Args:
        rule: The update rule; by default the paper's.
        seed: Of its first weights.
    """

    keeps_graphs = False

    def __init__(self, rule: UpdateRule | None = None, seed: int = 0) -> None:
        self._rule: UpdateRule = LSTMUpdate(seed) if rule is None else rule
        self.networks: dict[str, nn.Module] = {"update": self._rule.weights}

    def unroll(
        self,
        models: TaskModels,
        start: InnerState,
        batches: Sequence[Batch],
        noise: torch.Generator,
    ) -> UnrollResult:
        theta = start.theta
        state = start.memory.get("state", self._rule.initial_state(theta))
        models.set_buffers(0, start.buffers)
        models.set_parameters(0, theta)
        first, g = models.gradient(0, *batches[0])
        losses: list[Tensor] = []
        linear_terms: list[Tensor] = []
        for batch in batches[1:]:
            last = {k: v.clone() for k, v in models.buffers(0).items()}
            update, state = self._rule(g, state)
            theta = theta + update
            # The network's graph is not needed after its gradient, so one copy is enough.
            models.set_parameters(0, theta.detach())
            loss, g = models.gradient(0, *batch)
            losses.append(loss)
            linear_terms.append(torch.dot(g, theta))
        total = torch.stack(losses).sum()
        end = InnerState(
            start.task,
            theta.detach(),
            last,
            start.steps + len(losses),
            {"state": state.detach()},
        )
        return UnrollResult(
            {"update": with_value(total, torch.stack(linear_terms).sum())},
            end,
            error=losses[-1] - first,
            stats={"inner_loss": total / len(losses)},
        )
