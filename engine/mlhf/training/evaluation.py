"""Evaluates a model on samples of both splits."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from mlhf.curvature.forward_pass import evaluated
from mlhf.curvature.protocol import Loss
from mlhf.training.tally import Tally, units_of


class Samples(Protocol):
    """What training and evaluation need of a data set."""

    def size(self, split: str) -> int: ...

    def batch(
        self, split: str, indices: Tensor, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Any]: ...


def evaluate(
    model: nn.Module,
    data: Samples,
    loss: Loss,
    device: torch.device,
    *,
    batch_size: int,
    max_samples: int | None = None,
    subset: Mapping[str, Tensor] | None = None,
    rest: Mapping[str, Tensor] | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> dict[str, float] | None:
    """Return train and test loss, and accuracy if targets are classes.

    Of regression, ``relative_l2`` too: the root of the squared errors' sum over that of the
    targets, in their own units. Of several heads each one's, as ``train_<head>_loss``; of
    detection, ``average_precision``.

    With ``rest`` the same of the whole splits too, as ``whole_train_loss`` and so on: of
    ``subset`` and ``rest`` together. Draws no random numbers and leaves the model as it was.

    Args:
        model: On ``device``.
        data: Has the splits ``train`` and ``test``.
        loss: Of the run.
        device: Where to compute.
        batch_size: Samples per forward pass.
        max_samples: If given, measure this many samples of each split, spread evenly over it.
        subset: In its place, the indices of each split's samples.
        rest: Those of the others.
        should_stop: Asked before each batch; once it is true, None is returned.
    """
    values: dict[str, float] = {}
    whole: dict[str, float] = {}
    units = units_of(getattr(data, "preprocessing", {}))
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            for split in ("train", "test"):
                size = data.size(split)
                if size == 0:
                    continue
                rows = spread(size, max_samples) if subset is None else subset[split]

                tally = Tally(loss, units)

                def measure(rows: Tensor, split: str = split, tally: Tally = tally) -> bool:
                    batches = torch.split(rows, batch_size)
                    return _measure(model, data, tally, device, split, batches, should_stop)

                if not measure(rows):
                    return None
                values |= tally.means(split)
                if rest is None:
                    continue
                if len(rest.get(split, ())) and not measure(rest[split]):
                    return None
                whole |= tally.means(f"whole_{split}")
    finally:
        model.train(was_training)
    return values | whole


def _measure(
    model: nn.Module,
    data: Samples,
    tally: Tally,
    device: torch.device,
    split: str,
    batches: Iterable[Tensor],
    should_stop: Callable[[], bool],
) -> bool:
    """Add the batches up; False where that was stopped."""
    for indices in batches:
        if should_stop():
            return False
        x, y = data.batch(split, indices, device)
        tally.add(evaluated(model, x), y)
    return True


def spread(size: int, wanted: int | None) -> Tensor:
    """Return the indices of so many samples, spread evenly over a split."""
    if wanted is None or wanted >= size:
        return torch.arange(size)
    return torch.arange(wanted) * size // wanted
