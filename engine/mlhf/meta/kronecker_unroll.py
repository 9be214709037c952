"""Whole runs of MLHF's Kronecker form, judged by how the loss fell.

The meta-loss is asinh(m) + asinh(m'), with m the mean over all looks and m' the mean over the
last fifth of

    log(ℓ_k / ℓ_0 + 10⁻⁵),

with ℓ_0 the loss on the first batch and ℓ_k that of the averaged weights, which are what is
kept, on the next batch after each tenth step (in short runs more often). The logarithm makes
stages of training count alike, far down too; asinh keeps tasks whose loss falls by powers of
ten from drowning those where it falls by half. A loss is taken as at most ten times the first,
so that a run that diverged is bad, not infinitely so. Nothing is differentiated: this is for
evolution strategies.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from mlhf.curvature.pytree_loss import loss_of
from mlhf.curvature.vectors import flatten
from mlhf.meta.learned import Batch, Unrolled
from mlhf.meta.trajectory import Bench, Point
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF, fresh_networks

_FLOOR = 1e-5
_WORST = 10.0
_LAST = 0.2
_LOOK_EVERY = 10  # steps at most: a look takes a forward pass, and waits
_LOOKS = 20  # at least, where the run has so many steps


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
        # The optimizer runs its few weights on the CPU, wherever the model is.
        optimizer.networks = {n: copy.deepcopy(w).cpu() for n, w in self.networks.items()}
        steps = len(batches) - 1
        every = max(1, min(_LOOK_EVERY, steps // _LOOKS))
        losses: list[Tensor] = []
        for k, (x, y) in enumerate(batches[:-1]):
            loss = optimizer.step(x, y).loss
            if not losses:
                losses.append(loss)
            if (k + 1) % every == 0:
                losses.append(_kept(optimizer, *batches[k + 1]))
                if not torch.maximum(loss, losses[-1]) < _WORST * losses[0]:
                    break
        found = meta_loss(torch.stack(losses), 1 + steps // every)
        parameters = bench.parameters_of(model)
        end = Point(
            start.task,
            flatten([p.detach() for p in parameters]),
            {k: v.clone() for k, v in model.named_buffers()},
            start.steps + steps,
        )
        return Unrolled(
            dict.fromkeys(self.networks, found),
            end,
            error=found,
            stats={"inner_loss": losses[-1]},
        )


def _kept(optimizer: KroneckerMLHF, x: Any, y: Any) -> Tensor:
    """Return the averaged weights' loss on a batch, by the batch's own statistics."""
    buffers = {name: b.clone() for name, b in optimizer.model.named_buffers()}
    optimizer.eval_mode()
    with torch.no_grad():
        loss = loss_of(optimizer.loss, functional_call(optimizer.model, buffers, (x,)), y)
    optimizer.train_mode()
    return loss


def meta_loss(losses: Tensor, looks: int) -> Tensor:
    """Return the meta-loss of a run of so many looks, from its losses (fewer: it diverged)."""
    worst = _WORST * losses[0]
    whole = torch.cat([losses, worst.expand(looks - len(losses))])
    relative = torch.where(whole < worst, whole, worst) / losses[0]
    terms = torch.log(relative + _FLOOR)
    last = terms[-max(1, round(_LAST * looks)) :]
    return torch.asinh(terms.mean()) + torch.asinh(last.mean())
