"""Numbers over seeds."""

import math
from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]


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
