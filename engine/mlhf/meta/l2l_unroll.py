"""Unrolls of L2L: the meta-loss is the sum of the losses after each update.

As in Andrychowicz et al. gradients are inputs that are not differentiated, but θ is: each
update moves all later ones. So the sum's gradient goes through ⟨sg(∇ℓ(θ_t)), θ_t⟩, without
second derivatives.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlhf.meta.learned import Batch, Unrolled, with_value
from mlhf.meta.trajectory import Bench, Point
from mlhf.optimizers.l2l import LSTMUpdate, UpdateRule


class L2LUnroll:
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
        self, bench: Bench, start: Point, batches: Sequence[Batch], noise: torch.Generator
    ) -> Unrolled:
        theta = start.theta
        state = start.memory.get("state", self._rule.initial_state(theta))
        bench.put_buffers(0, start.buffers)
        bench.place(0, theta)
        first, g = bench.gradient(0, *batches[0])
        losses: list[Tensor] = []
        pulls: list[Tensor] = []
        for batch in batches[1:]:
            last = {k: v.clone() for k, v in bench.buffers(0).items()}
            update, state = self._rule(g, state)
            theta = theta + update
            # No graph of the network outlives its gradient, so one copy does.
            bench.place(0, theta.detach())
            loss, g = bench.gradient(0, *batch)
            losses.append(loss)
            pulls.append(torch.dot(g, theta))
        total = torch.stack(losses).sum()
        end = Point(
            start.task,
            theta.detach(),
            last,
            start.steps + len(losses),
            {"state": state.detach()},
        )
        return Unrolled(
            {"update": with_value(total, torch.stack(pulls).sum())},
            end,
            error=losses[-1] - first,
            stats={"inner_loss": total / len(losses)},
        )
