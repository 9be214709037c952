"""Whole runs of MLHF's Kronecker form, judged by how the loss fell.

The meta-loss is asinh(m) + asinh(m'), with m the mean over all steps and m' the mean over the
last fifth of

    log(ℓ_k / ℓ_0 + 10⁻⁵),

with ℓ_k the loss on a batch before step k. The logarithm makes stages of training count alike,
far down too; asinh keeps tasks whose loss falls by powers of ten from drowning those where it
falls by half. A loss is taken as at most ten times the first, so that a run that diverged is
bad, not infinitely so. Nothing is differentiated: this is for evolution strategies.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from engine.meta.learned import Batch, Unrolled
from engine.meta.trajectory import Bench, Point
from engine.mlhf.kronecker.optimizer import KroneckerMLHF, fresh_networks
from engine.optimizers.hessian_free import flatten

_FLOOR = 1e-5
_WORST = 10.0
_LAST = 0.2
_LOOK_EVERY = 20  # steps between two looks at whether a run has diverged: each waits


class KroneckerUnroll:
    """The Kronecker form in meta-training, from a fresh network to the end of a run."""

    keeps_graphs = False

    def __init__(self) -> None:
        self.networks = fresh_networks()

    def unroll(
        self, bench: Bench, start: Point, batches: Sequence[Batch], noise: torch.Generator
    ) -> Unrolled:
        """Take a whole run; ``start`` is where it begins, without memory."""
        model = copy.deepcopy(bench.model(0))
        bench.place(0, start.theta)
        bench.put_buffers(0, start.buffers)
        model.load_state_dict(bench.model(0).state_dict())
        seed = int(torch.randint(2**31, (), generator=noise))
        optimizer = KroneckerMLHF(model, bench.task.loss, None, seed=seed)
        optimizer.networks = self.networks
        losses: list[Tensor] = []
        for k, (x, y) in enumerate(batches[:-1]):
            losses.append(optimizer.step(x, y).loss)
            if k % _LOOK_EVERY == 0 and not losses[-1] < _WORST * losses[0]:
                break
        found = meta_loss(torch.stack(losses), len(batches) - 1)
        parameters = bench.parameters_of(model)
        end = Point(
            start.task,
            flatten([p.detach() for p in parameters]),
            {k: v.clone() for k, v in model.named_buffers()},
            start.steps + len(batches) - 1,
        )
        return Unrolled(
            dict.fromkeys(self.networks, found),
            end,
            error=found,
            stats={"inner_loss": losses[-1]},
        )


def meta_loss(losses: Tensor, steps: int) -> Tensor:
    """Return the meta-loss of a run of so many steps, from its losses (fewer: it diverged)."""
    worst = _WORST * losses[0]
    whole = torch.cat([losses, worst.expand(steps - len(losses))])
    relative = torch.where(whole < worst, whole, worst) / losses[0]
    terms = torch.log(relative + _FLOOR)
    last = terms[-max(1, round(_LAST * steps)) :]
    return torch.asinh(terms.mean()) + torch.asinh(last.mean())
