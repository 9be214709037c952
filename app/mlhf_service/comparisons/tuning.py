"""How well a setting did while settings were tried: the score that tuning makes small."""

import math
from collections.abc import Sequence

# The tag of runs that only serve to choose a setting.
PHASE, TUNING = "phase", "tuning"

# Losses below it count as it, so that rounding decides nothing.
FLOOR = 1e-6


def log_loss(loss: float) -> float:
    """Return the natural logarithm of a loss, of one below ``FLOOR`` that of ``FLOOR``."""
    return math.log(max(loss, FLOOR))


def mean_log_loss(losses: Sequence[float]) -> float:
    """Return the mean log loss over the evaluations after the start; infinite where any is not
    finite, or there are none."""
    later = losses[1:]
    if not later or not all(map(math.isfinite, later)):
        return math.inf
    return sum(map(log_loss, later)) / len(later)


def tuning_score(losses: Sequence[float]) -> float:
    """Return the mean of the final log loss and of the mean over all evaluations.

    So of two settings that end alike, the one that is there sooner is better.
    """
    mean = mean_log_loss(losses)
    return mean if mean == math.inf else (log_loss(losses[-1]) + mean) / 2
