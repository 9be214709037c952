"""Facts about metrics: which way is better, last and best values, numbers in JSON.

Needs no torch. JSON has no NaN and no infinities, so these floats are written by name.
"""

import math
from typing import Literal, TypedDict

NonFinite = Literal["NaN", "Infinity", "-Infinity"]


class Summary(TypedDict):
    """A metric's last and best value; ``best`` is None until a value was finite."""

    last: float
    best: float | None
    best_step: int | None


def higher_is_better(metric: str) -> bool:
    """Whether larger values of a metric are better; they are for accuracies and precisions."""
    return metric.endswith(("accuracy", "average_precision"))


def reaches(metric: str, value: float, target: float) -> bool:
    """Whether a value is at least as good as the target; NaN never is."""
    return value >= target if higher_is_better(metric) else value <= target


def summarize(summary: Summary | None, metric: str, value: float, step: int) -> Summary:
    """Return the summary with one more value; of equal values the first stays the best."""
    best, best_step = (summary["best"], summary["best_step"]) if summary else (None, None)
    if math.isfinite(value):
        sign = 1 if higher_is_better(metric) else -1
        if best is None or sign * value > sign * best:
            best, best_step = value, step
    return {"last": value, "best": best, "best_step": best_step}


def json_number(value: float) -> float | NonFinite:
    """Return the number, or its name if it is not finite."""
    if math.isfinite(value):
        return value
    return "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"


def parse_number(value: float | str) -> float:
    """Return a number of a JSON document; undoes ``json_number``."""
    return float(value)
