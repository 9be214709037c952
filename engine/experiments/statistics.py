"""Numbers of curves and over seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from engine.experiments.contract import Result

Row = dict[str, Any]


@dataclass(frozen=True)
class Curve:
    """One run's evaluations, and its result."""

    points: list[dict[str, Any]]
    result: Result

    @property
    def seconds(self) -> float:
        return float(self.result["totals"]["wall_seconds"])

    @property
    def steps(self) -> int:
        return int(self.result["totals"]["steps"])

    def final(self, metric: str) -> float:
        """Return the last value; NaN where the run diverged."""
        if self.result["status"] == "diverged" or not self.points:
            return math.nan
        return float(self.points[-1]["values"].get(metric, math.nan))

    def mean(self, metric: str) -> float:
        """Return the mean over all evaluations but the first; NaN where the run diverged."""
        if self.result["status"] == "diverged" or len(self.points) < 2:
            return math.nan
        return mean([p["values"][metric] for p in self.points[1:]])


def reached(curve: Curve, target: float) -> dict[str, Any] | None:
    """Return the first evaluation with a training loss at or below the target, if any."""
    return next((p for p in curve.points if p["values"]["train_loss"] <= target), None)


def mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)


def summarize(values: Sequence[float], digits: int = 4) -> str:
    """Return the mean, and lowest and highest where there are several.

    A value that is not finite makes it ``diverged``: no mean hides a failed seed.
    """
    if not all(map(math.isfinite, values)):
        return f"diverged ({sum(not math.isfinite(v) for v in values)} of {len(values)})"
    middle = f"{mean(values):,.{digits}f}"
    if len(values) == 1:
        return middle
    return f"{middle} ({min(values):,.{digits}f} to {max(values):,.{digits}f})"
