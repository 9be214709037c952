"""The loss of a run: from its name and parameters to a function, and what evaluation adds up."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from mlhf.core.config import Component
from mlhf.curvature.loss_object import LossObject
from mlhf.curvature.protocol import Loss
from mlhf.curvature.weighted_loss import WeightedLoss
from mlhf.data.info import DataInfo
from mlhf.losses.detection import Detection
from mlhf.losses.heads import Head, Heads
from mlhf.losses.specs import LOSSES, ChosenLoss, choose_losses, default_loss, network_info


def loss_name(info: DataInfo) -> str:
    """Return the name of the task's loss."""
    return default_loss(info.task)


def make_loss(info: DataInfo, choice: Component | None = None) -> Loss:
    """Return the loss of a run: by its name where it has no options, else as an object.

    Args:
        info: The data, as its family describes it.
        choice: The loss; None: that of the task.

    Raises:
        SpecError: it does not fit the data.
    """
    chosen = choose_losses(choice, info)
    if not info.heads:
        return _made(chosen[""], info)
    needed = network_info(info, choice)
    heads = {}
    for name, each in chosen.items():
        loss = _object(each, info)
        assert isinstance(loss, WeightedLoss)
        shape = _shape(info, each.outputs, needed.heads[name].positions)
        heads[name] = Head(loss, shape, each.weight)
    return Heads(heads)


def _shape(info: DataInfo, outputs: int, positions: tuple[int, ...]) -> tuple[int, ...]:
    return (outputs, *positions) if info.kind == "image" else (*positions, outputs)


def _made(chosen: ChosenLoss, info: DataInfo) -> Loss:
    plain = not info.weighted and not chosen.params.model_dump(exclude_defaults=True)
    usual = chosen.name in ("cross_entropy", "mse", "binary_cross_entropy")
    maps = info.kind == "image" and chosen.target.positions
    if plain and usual and not maps and chosen.outputs == chosen.target.outputs:
        return chosen.name
    return _object(chosen, info)


def _object(chosen: ChosenLoss, info: DataInfo) -> LossObject:
    options = chosen.params.model_dump()
    if chosen.name == "detection":
        return Detection(**options)
    if chosen.name == "binary_cross_entropy":
        options["two_classes"] = chosen.target.task == "classification"
    maps = info.kind == "image" and chosen.target.positions
    axis = 1 if maps else -1
    make: type[WeightedLoss] = LOSSES[chosen.name].load()
    return make(**options, channel_axis=axis, sample_weights=info.weighted)


def flat(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return (B, T, V) outputs and (B, T) tokens as (B·T, V) and (B·T,); others as they are."""
    if outputs.ndim == 3 and targets.ndim == 2 and not targets.is_floating_point():
        return outputs.flatten(0, 1), targets.flatten()
    return outputs, targets


@dataclass(frozen=True)
class Sums:
    """Sums over a batch, on its device: divide the totals by their weights for means.

    Attributes:
        loss: Float64 sum of the losses.
        correct: Number of right classes, tokens or pixels; of several labels a sample, the sum
            over samples of the fraction that is right; None for regression.
        count: Number of samples, tokens or pixels that are counted.
        squares: For regression, of the error and of the target, summed for each output: (2, K).
            A constant part of targets is added back for ``target_mean``.
        weight: What the loss is divided by; None: ``count``.
    """

    loss: Tensor
    correct: Tensor | None
    count: Tensor | int
    squares: Tensor | None = None
    weight: Tensor | None = None

    @property
    def total(self) -> Tensor | int:
        """What the loss is divided by."""
        return self.count if self.weight is None else self.weight

    def plus(self, other: "Sums") -> "Sums":
        """Return the sums of both batches."""

        def added(a: Any, b: Any) -> Any:
            return None if a is None or b is None else a + b

        names = [each.name for each in fields(self)]
        return Sums(**{n: added(getattr(self, n), getattr(other, n)) for n in names})


def loss_and_correct(
    name: Loss, outputs: Tensor, targets: Any, offset: Tensor | None = None
) -> Sums:
    """Return what an evaluation over many batches adds up; differentiates nothing.

    Args:
        name: The loss, of one target.
        outputs: Of the model.
        targets: As the model is trained on.
        offset: For regression, what targets in their own units have beside them, over their
            deviation: (K,).
    """
    if isinstance(name, WeightedLoss):
        return _of_object(name, outputs.detach(), targets, offset)
    outputs, targets = flat(outputs.detach(), targets.detach())
    if name == "mse":
        losses = functional.mse_loss(outputs, targets, reduction="none").mean(
            tuple(range(1, outputs.ndim))
        )
        squares = _squares(outputs, targets, offset)
        return Sums(losses.sum(dtype=torch.float64), None, len(targets), squares)
    if name == "binary_cross_entropy":
        losses = functional.binary_cross_entropy_with_logits(outputs, targets, reduction="none")
        right = ((outputs > 0) == (targets > 0.5)).to(torch.float64)
        axes = tuple(range(1, outputs.ndim))
        loss = losses.mean(axes).sum(dtype=torch.float64)
        return Sums(loss, right.mean(axes).sum(), len(targets))
    losses = functional.cross_entropy(outputs, targets, reduction="none")
    correct = (outputs.argmax(1) == targets).sum()
    counted = (targets >= 0).sum()
    return Sums(losses.sum(dtype=torch.float64), correct, counted)


def head_sums(
    loss: Heads, outputs: Tensor, targets: Any, offsets: Mapping[str, Tensor | None]
) -> dict[str, Sums]:
    """Return the sums of each head."""
    parts = loss.parts(outputs, targets)
    return {
        name: loss_and_correct(head.loss, own, target, offsets.get(name))
        for name, (head, own, target) in zip(loss.heads, parts, strict=True)
    }


def _of_object(loss: WeightedLoss, z: Tensor, y: Any, offset: Tensor | None) -> Sums:
    total, weight = loss.sums(z, y)
    targets = y[0] if loss.sample_weights else y
    moved = loss.moved(z)
    fitted = loss.target(moved, targets)
    if loss.name == "cross_entropy":
        counted = loss.counted(fitted)
        assert counted is not None
        right = (moved.argmax(-1) == fitted) & counted
        return Sums(total, right.sum(), counted.sum(), None, weight)
    count = fitted[..., 0].numel()
    if loss.name == "binary_cross_entropy":
        right = ((moved > 0) == (fitted > 0.5)).to(torch.float64).mean(-1).sum()
        return Sums(total, right, count, None, weight)
    squares = None
    if loss.name in ("mse", "huber"):
        squares = _squares(
            moved.reshape(-1, moved.shape[-1]),
            fitted.reshape(-1, z.shape[loss.channel_axis]),
            offset,
        )
    return Sums(total, None, count, squares, weight)


def _squares(outputs: Tensor, targets: Tensor, offset: Tensor | None) -> Tensor:
    """Σ over positions of error² and of target², (2, K)."""
    outputs, targets = (t.reshape(-1, t.shape[-1]) for t in (outputs, targets))
    whole = targets.double() + (0.0 if offset is None else offset.to(targets.device))
    return torch.stack([(outputs.double() - targets).square().sum(0), whole.square().sum(0)])
