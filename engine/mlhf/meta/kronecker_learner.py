"""Whole runs of MLHF's Kronecker form, scored by how the loss fell.

The meta-loss is asinh(m) + asinh(m'), with m the mean over all evaluations and m' the mean over
the last fifth of

    log(ℓ_k / ℓ_0 + 10⁻⁵),

with ℓ_0 the loss on the first batch and ℓ_k the loss of the averaged weights, which are what a
run keeps, on the next batch after every tenth step (in short runs more often). The logarithm
weighs all stages of training alike, low losses too. asinh keeps tasks whose loss falls by powers
of ten from drowning out those where it halves. A loss counts as at most ten times the first, so
that a run that diverged is bad, but not infinitely so. Nothing is differentiated: this is for
evolution strategies.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call

from mlhf.core.errors import DivergedError
from mlhf.curvature.pytree_loss import loss_of
from mlhf.curvature.vectors import flatten
from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import Batch, UnrollResult
from mlhf.meta.task_models import TaskModels
from mlhf.optimizers.mlhf.kronecker.optimizer import KroneckerMLHF, fresh_networks

_FLOOR = 1e-5
_WORST = 10.0
_LAST = 0.2
_EVALUATE_EVERY = 10  # steps at most; an evaluation costs a forward pass and a synchronization
_EVALUATIONS = 20  # at least, if the run has that many steps


class KroneckerLearner:
    """The Kronecker form in meta-training, from a fresh network to the end of a run."""

    keeps_graphs = False

    def __init__(self) -> None:
        self.networks = fresh_networks()

    def unroll(
        self,
        models: TaskModels,
        start: InnerState,
        batches: Sequence[Batch],
        noise: torch.Generator,
    ) -> UnrollResult:
        """Do a whole run from ``start``, whose ``memory`` is not used."""
        model = copy.deepcopy(models.model(0))
        models.set_parameters(0, start.theta)
        models.set_buffers(0, start.buffers)
        model.load_state_dict(models.model(0).state_dict())
        seed = int(torch.randint(2**31, (), generator=noise))
        optimizer = KroneckerMLHF(model, models.task.loss, None, seed=seed)
        # The optimizer runs its few weights on the CPU, wherever the model is.
        optimizer.networks = {n: copy.deepcopy(w).cpu() for n, w in self.networks.items()}
        steps = len(batches) - 1
        every = max(1, min(_EVALUATE_EVERY, steps // _EVALUATIONS))
        losses: list[Tensor] = []
        for k, (x, y) in enumerate(batches[:-1]):
            try:
                loss = optimizer.step(x, y).loss
            except DivergedError:
                break
            if not losses:
                losses.append(loss)
            if (k + 1) % every == 0:
                losses.append(_averaged_loss(optimizer, *batches[k + 1]))
                if not torch.maximum(loss, losses[-1]) < _WORST * losses[0]:
                    break
        loss_of_run = meta_loss(torch.stack(losses), 1 + steps // every)
        parameters = models.parameters_of(model)
        end = InnerState(
            start.task,
            flatten([p.detach() for p in parameters]),
            {k: v.clone() for k, v in model.named_buffers()},
            start.steps + steps,
        )
        return UnrollResult(
            dict.fromkeys(self.networks, loss_of_run),
            end,
            error=loss_of_run,
            stats={"inner_loss": losses[-1]},
        )


def _averaged_loss(optimizer: KroneckerMLHF, x: Any, y: Any) -> Tensor:
    """Return the averaged weights' loss on a batch, normalized by the batch's own statistics."""
    buffers = {name: b.clone() for name, b in optimizer.model.named_buffers()}
    optimizer.eval_mode()
    with torch.no_grad():
        loss = loss_of(optimizer.loss_function, functional_call(optimizer.model, buffers, (x,)), y)
    optimizer.train_mode()
    return loss


def meta_loss(losses: Tensor, evaluations: int) -> Tensor:
    """Return the meta-loss of a run.

    Args:
        losses: The losses measured, (k,); fewer than ``evaluations`` if the run diverged.
        evaluations: How many there are in a whole run.
    """
    worst = _WORST * losses[0]
    whole = torch.cat([losses, worst.expand(evaluations - len(losses))])
    relative = torch.where(whole < worst, whole, worst) / losses[0]
    terms = torch.log(relative + _FLOOR)
    last = terms[-max(1, round(_LAST * evaluations)) :]
    return torch.asinh(terms.mean()) + torch.asinh(last.mean())
