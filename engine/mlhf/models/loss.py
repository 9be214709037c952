"""The loss that goes with a task, and what evaluation adds up."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from mlhf.data.info import DataInfo

LossName = Literal["cross_entropy", "mse", "binary_cross_entropy"]


def loss_name(info: DataInfo) -> LossName:
    """Return the task's loss."""
    if info.task == "multilabel":
        return "binary_cross_entropy"
    return "mse" if info.task == "regression" else "cross_entropy"


def flat(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, T, V) outputs and (B, T) tokens as (B·T, V) and (B·T,); others as they are."""
    if outputs.ndim == 3:
        return outputs.flatten(0, 1), targets.flatten()
    return outputs, targets


@dataclass(frozen=True)
class Sums:
    """Sums over a batch, on its device: divide the totals by ``count`` for means.

    Attributes:
        loss: Float64 sum of the losses.
        correct: Number of right classes or tokens; of several labels a sample, the sum over
            samples of the fraction that is right; None for regression.
        count: Number of samples (for text, of tokens).
    """

    loss: Tensor
    correct: Tensor | None
    count: int


def loss_and_correct(name: LossName, outputs: Tensor, targets: Tensor) -> Sums:
    """Return what an evaluation over many batches adds up; differentiates nothing."""
    outputs, targets = (each.detach() for each in flat(outputs, targets))
    if name == "mse":
        losses = functional.mse_loss(outputs, targets, reduction="none").mean(1)
        return Sums(losses.sum(dtype=torch.float64), None, len(targets))
    if name == "binary_cross_entropy":
        losses = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        right = ((outputs > 0) == (targets > 0.5)).to(torch.float64).mean(1).sum()
        return Sums(losses.mean(1).sum(dtype=torch.float64), right, len(targets))
    losses = functional.cross_entropy(outputs, targets, reduction="none")
    correct = (outputs.argmax(1) == targets).sum()
    return Sums(losses.sum(dtype=torch.float64), correct, len(targets))
