"""The numbers of a curve: its integral, its crossing of a target, a mean over seeds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from scipy.stats import t

from bench.harness.statistics import Curve
from bench.judge.step_timing import StepTiming
from mlhf_service.comparisons.tuning import log_loss, mean_log_loss, tuning_score

_CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds and half the width of its 95 % interval (Student's t; 0 for one seed)."""

    mean: float
    half: float
    count: int

    def __str__(self) -> str:
        if not math.isfinite(self.mean):
            return "–"
        return f"{self.mean:.4g}" + (f" ± {self.half:.2g}" if self.count > 1 else "")


def estimate(values: Sequence[float]) -> Estimate:
    """Return mean and interval, infinite where any value is not finite: no mean hides a miss."""
    count = len(values)
    if not count or not all(map(math.isfinite, values)):
        return Estimate(math.inf, math.inf, count)
    middle = sum(values) / count
    if count == 1:
        return Estimate(middle, 0.0, 1)
    spread = math.sqrt(sum((v - middle) ** 2 for v in values) / (count - 1) / count)
    quantile = float(t.ppf((1 + _CONFIDENCE) / 2, count - 1))
    return Estimate(middle, quantile * spread, count)


def train_losses(curve: Curve) -> list[float]:
    """Return the training loss at the start and after each epoch, infinite in place of NaN."""
    losses = [float(p["values"]["train_loss"]) for p in curve.points]
    return [loss if loss < math.inf else math.inf for loss in losses]


def final(curve: Curve, metric: str = "train_loss") -> float:
    """Return the last value, infinite where the run diverged."""
    value = curve.final(metric)
    return value if math.isfinite(value) else math.inf


def integral(curve: Curve) -> float:
    """Return the mean log training loss over the ends of epochs, infinite where it diverged."""
    return math.inf if _diverged(curve) else mean_log_loss(train_losses(curve))


def score(curve: Curve) -> float:
    """Return what tuning minimises: the mean of the final log training loss and the integral."""
    return math.inf if _diverged(curve) else tuning_score(train_losses(curve))


def _diverged(curve: Curve) -> bool:
    return bool(curve.result["status"] == "diverged")


def targets(curves: Sequence[Curve]) -> dict[str, float]:
    """Return the mean training loss at 50, 75 and 100 % of the curves' horizon."""
    found = {}
    for percent in (50, 75, 100):
        at = [train_losses(c)[round((len(c.points) - 1) * percent / 100)] for c in curves]
        found[str(percent)] = sum(at) / len(at)
    return found


def crossing(curve: Curve, target: float) -> Mapping[str, float] | None:
    """Return where the training loss first reached a target, None where it never did.

    An epoch is a coarse clock. Between the first evaluation at or below the target and the one
    before it, log losses and everything else are interpolated linearly.

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
        fraction = _fraction(before["train_loss"], here["train_loss"], target)
        return {k: _between(k, before[k], here[k], fraction) for k in here if k in before}
    return None


def seconds_of(at: Mapping[str, float], timing: StepTiming | None = None) -> float:
    """Return the training seconds of a crossing.

    Args:
        timing: Step times measured in turns; without them the run's own seconds count.
    """
    return at["wall_seconds"] if timing is None else timing.seconds(at["step"])


def _fraction(above: float, below: float, target: float) -> float:
    """Return how far from one loss to the next the target lies, on a log scale (0 to 1)."""
    if not math.isfinite(above) or above <= below:
        return 1.0
    top, bottom, at = (log_loss(v) for v in (above, below, target))
    return 1.0 if top <= bottom else min(1.0, max(0.0, (top - at) / (top - bottom)))


def _between(name: str, first: float, second: float, fraction: float) -> float:
    """Return a value interpolated between two, losses on a log scale."""
    if name.endswith("loss") and min(first, second) > 0 and math.isfinite(first):
        return math.exp(math.log(first) + fraction * (math.log(second) - math.log(first)))
    return second if fraction == 1 else first + fraction * (second - first)


def _flat(point: Mapping[str, object]) -> dict[str, float]:
    values = point["values"]
    assert isinstance(values, Mapping)
    rest = {k: v for k, v in point.items() if isinstance(v, int | float)}
    return {**{k: float(v) for k, v in rest.items()}, **{k: float(v) for k, v in values.items()}}
