"""A finished run's curve and its numbers."""

import math
from dataclasses import dataclass
from typing import Any

from bench.harness.contract import Result
from mlhf.ablation.statistics import mean


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
