"""Evaluates a model on whole splits."""

from collections.abc import Callable, Iterable
from typing import Protocol

import torch
from torch import Tensor, nn

from mlhf.models.loss import LossName, loss_and_correct


class Samples(Protocol):
    """What training and evaluation need of a data set."""

    def size(self, split: str) -> int: ...

    def batch(
        self, split: str, indices: Tensor, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]: ...


def evaluate(
    model: nn.Module,
    data: Samples,
    loss: LossName,
    device: torch.device,
    *,
    batch_size: int,
    max_samples: int | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return train and test loss, and accuracy if targets are classes.

    Draws no random numbers and leaves the model as it was.

    Args:
        model: On ``device``.
        data: Has the splits ``train`` and ``test``.
        loss: Name of the loss.
        device: Where to compute.
        batch_size: Samples per forward pass.
        max_samples: If given, measure this many samples of each split, spread evenly over it.
        should_stop: Asked before each batch; once it is true, None is returned.
    """
    values: dict[str, float] = {}
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for split in ("train", "test"):
                size = data.size(split)
                if size == 0:
                    continue
                batches = torch.split(_spread(size, max_samples), batch_size)
                measured = _measure(model, data, loss, device, split, batches, should_stop)
                if measured is None:
                    return None
                values.update({f"{split}_{name}": value for name, value in measured.items()})
    finally:
        model.train(was_training)
    return values


def _measure(
    model: nn.Module,
    data: Samples,
    loss: LossName,
    device: torch.device,
    split: str,
    batches: Iterable[Tensor],
    should_stop: Callable[[], bool],
) -> dict[str, float] | None:
    total: Tensor | None = None
    correct: Tensor | None = None
    count = 0
    for indices in batches:
        if should_stop():
            return None
        x, y = data.batch(split, indices, device)
        sums = loss_and_correct(loss, model(x), y)
        total = sums.loss if total is None else total + sums.loss
        if sums.correct is not None:
            correct = sums.correct if correct is None else correct + sums.correct
        count += sums.count
    assert total is not None
    measured = {"loss": total.item() / count}
    if correct is not None:
        measured["accuracy"] = correct.item() / count
    return measured


def _spread(size: int, wanted: int | None) -> Tensor:
    if wanted is None or wanted >= size:
        return torch.arange(size)
    return torch.arange(wanted) * size // wanted
