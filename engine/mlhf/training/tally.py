"""What an evaluation adds up over batches, and the metrics that follow from it."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.protocol import Loss
from mlhf.losses.detection import Detection, Found, average_precision
from mlhf.losses.heads import Heads
from mlhf.models.loss import Sums, head_sums, loss_and_correct


@dataclass(frozen=True)
class Units:
    """Mean / deviation and deviation of regression targets, (K,), where they were scaled."""

    offset: Tensor | None = None
    deviation: Tensor | None = None


@dataclass
class Tally:
    """Sums over the batches of a split.

    Attributes:
        loss: Of the run.
        units: Of each target by its name; a single one has the name ``""``.
    """

    loss: Loss
    units: Mapping[str, Units]
    _sums: dict[str, Sums] = field(default_factory=dict)
    _found: list[Found] = field(default_factory=list)

    def add(self, outputs: Any, targets: Any) -> None:
        """Add a batch."""
        if isinstance(self.loss, Detection):
            count = len(targets)
            value = self.loss(outputs, targets).detach().double() * count
            found = {"": Sums(value, None, count)}
            self._found += self.loss.found(outputs, targets)
        elif isinstance(self.loss, Heads):
            offsets = {name: units.offset for name, units in self.units.items()}
            found = head_sums(self.loss, outputs, targets, offsets)
        else:
            offset = self.units.get("", Units()).offset
            found = {"": loss_and_correct(self.loss, outputs, targets, offset)}
        for name, sums in found.items():
            self._sums[name] = self._sums[name].plus(sums) if name in self._sums else sums

    def means(self, prefix: str) -> dict[str, float]:
        """Return the metrics so far, such as ``train_loss`` and ``train_accuracy``."""
        if not isinstance(self.loss, Heads):
            found = self._of(self._sums[""], self.units.get("", Units()), prefix)
            if isinstance(self.loss, Detection):
                precision = average_precision(self._found)
                if not math.isnan(precision):  # no image of the split has a box
                    found[f"{prefix}_average_precision"] = precision
            return found
        values: dict[str, float] = {}
        for name, sums in self._sums.items():
            values |= self._of(sums, self.units.get(name, Units()), f"{prefix}_{name}")
        losses = {name: values.get(f"{prefix}_{name}_loss") for name in self.loss.heads}
        if all(each is not None for each in losses.values()):
            weighted = [head.weight * (losses[n] or 0.0) for n, head in self.loss.heads.items()]
            values = {f"{prefix}_loss": sum(weighted), **values}
        return values

    def _of(self, sums: Sums, units: Units, prefix: str) -> dict[str, float]:
        means = {}
        # Where nothing counts, as where all labels of a split are left out, nothing is measured.
        if total := _number(sums.total):
            means[f"{prefix}_loss"] = float(sums.loss) / total
        if sums.correct is not None and (count := _number(sums.count)):
            means[f"{prefix}_accuracy"] = float(sums.correct) / count
        if sums.squares is None:
            return means
        squares = sums.squares
        if units.deviation is not None:
            squares = squares * units.deviation.square().to(squares.device)
        error, size = squares.sum(1).tolist()
        if size > 0:
            means[f"{prefix}_relative_l2"] = math.sqrt(error / size)
        return means


def _number(count: Tensor | int) -> float | int:
    return count.item() if isinstance(count, Tensor) else count


def units_of(preprocessing: Mapping[str, Any]) -> dict[str, Units]:
    """Return the units of all targets that were scaled, from what a data set notes."""
    found = {"": _units(preprocessing)}
    for name, own in preprocessing.get("targets", {}).items():
        found[name] = _units(own)
    return found


def _units(fitted: Mapping[str, Any]) -> Units:
    if "target_mean" not in fitted:
        return Units()
    mean, deviation = (
        torch.tensor(fitted[key], dtype=torch.float64) for key in ("target_mean", "target_std")
    )
    return Units(mean / deviation, deviation)
