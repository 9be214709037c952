"""What a curve is worth: its integral, and when it reached a target."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from bench.harness.statistics import Curve
from bench.judge.pace import Pace

# Losses below it count as it: no final loss is made by rounding.
_FLOOR = 1e-6
# Quantiles of Student's t for a two-sided 95 % interval, by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and half the width of its 95 % interval (0 for one seed)."""

    mean: float
    half: float
    count: int

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "–"
        return f"{self.mean:.4g}" + (f" ± {self.half:.2g}" if self.count > 1 else "")


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and interval; not finite where any value is not: no mean hides a miss."""
    count = len(values)
    if not count or not all(map(math.isfinite, values)):
        return Estimate(math.inf, math.inf, count)
    middle = sum(values) / count
    if count == 1:
        return Estimate(middle, 0.0, 1)
    spread = math.sqrt(sum((v - middle) ** 2 for v in values) / (count - 1) / count)
    quantile = _T[count - 2] if count - 2 < len(_T) else 1.96
    return Estimate(middle, quantile * spread, count)


def train_losses(curve: Curve) -> list[float]:
    """Return the training loss at the end of each epoch, the start first; no NaN but infinity."""
    losses = [float(p["values"]["train_loss"]) for p in curve.points]
    return [loss if loss < math.inf else math.inf for loss in losses]


def final(curve: Curve, metric: str = "train_loss") -> float:
    """Return the last value, infinite where the run diverged."""
    value = curve.final(metric)
    return value if math.isfinite(value) else math.inf


def integral(curve: Curve) -> float:
    """Return the mean log training loss over all epochs' ends; infinite where it diverged."""
    losses = train_losses(curve)[1:]
    if curve.result["status"] == "diverged" or not losses or not all(map(math.isfinite, losses)):
        return math.inf
    return sum(math.log(max(v, _FLOOR)) for v in losses) / len(losses)


def score(curve: Curve) -> float:
    """Return what tuning minimises: half the final log training loss, half its integral."""
    last = final(curve)
    return math.inf if last == math.inf else (math.log(max(last, _FLOOR)) + integral(curve)) / 2


def targets(curves: Sequence[Curve]) -> dict[str, float]:
    """Return the mean training loss at 50, 75 and 100 % of the curves' horizon."""
    found = {}
    for percent in (50, 75, 100):
        at = [train_losses(c)[round((len(c.points) - 1) * percent / 100)] for c in curves]
        found[str(percent)] = sum(at) / len(at)
    return found


def crossing(curve: Curve, target: float) -> Mapping[str, float] | None:
    """Return where the training loss first came down to a target; None for a miss.

    An epoch is a coarse clock: between the evaluation that is at or below the target and the
    one before, log losses and all else are taken as straight lines, to where they meet it.

    Returns:
        ``samples``, ``wall_seconds``, ``step`` and each value of the evaluations, or None.
    """
    for i, point in enumerate(curve.points):
        if not point["values"]["train_loss"] <= target:
            continue
        here = _flat(point)
        if i == 0:
            return here
        before = _flat(curve.points[i - 1])
        part = _part(before["train_loss"], here["train_loss"], target)
        return {k: _between(k, before[k], here[k], part) for k in here if k in before}
    return None


def seconds_of(at: Mapping[str, float], pace: Pace | None = None) -> float:
    """Return the training seconds of a crossing.

    Args:
        pace: Where it was measured in turns; else the run's own seconds count.
    """
    return at["wall_seconds"] if pace is None else pace.seconds(at["step"])


def _part(above: float, below: float, target: float) -> float:
    """Return how far from one loss to the next the target lies, on a log scale."""
    if not math.isfinite(above) or above <= below:
        return 1.0
    top, bottom, at = (math.log(max(v, _FLOOR)) for v in (above, below, target))
    return 1.0 if top <= bottom else min(1.0, max(0.0, (top - at) / (top - bottom)))


def _between(name: str, first: float, second: float, part: float) -> float:
    """Return a value so far on the way from one to the other, losses on a log scale."""
    if name.endswith("loss") and min(first, second) > 0 and math.isfinite(first):
        return math.exp(math.log(first) + part * (math.log(second) - math.log(first)))
    return second if part == 1 else first + part * (second - first)


def _flat(point: Mapping[str, object]) -> dict[str, float]:
    values = point["values"]
    assert isinstance(values, Mapping)
    rest = {k: v for k, v in point.items() if isinstance(v, int | float)}
    return {**{k: float(v) for k, v in rest.items()}, **{k: float(v) for k, v in values.items()}}
