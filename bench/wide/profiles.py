"""Numbers over all tasks: performance profiles, geometric means with their intervals.

A profile (Dolan and Moré 2002) says of an optimizer on which fraction of the tasks it needs at
most τ times what the best one there needs. AlgoPerf's score is the area below it up to τ = 4.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.wide.results import Cost, Form, TaskNumbers

MOST = 4.0  # the largest τ, as AlgoPerf has it
_DRAWS, _SEED = 4000, 20_250_101


@dataclass(frozen=True)
class GeometricMean:
    """A geometric mean of ratios over tasks, and its 95 % interval by the bootstrap."""

    mean: float
    low: float
    high: float
    tasks: int

    def __str__(self) -> str:
        if not self.tasks:
            return "–"
        return f"{self.mean:.2f} ({self.low:.2f} to {self.high:.2f})"


def ratios(tasks: Sequence[TaskNumbers], form: Form, cost: Cost) -> dict[str, dict[str, float]]:
    """Return, by contender and task, its cost over that of the best there; infinite for a miss."""
    found: dict[str, dict[str, float]] = {}
    for numbers in tasks:
        means = {}
        for name in numbers.contenders:
            reached = numbers.reached(form, name)
            if reached is not None:
                mean = (reached.samples if cost == "samples" else reached.seconds).mean
                means[name] = math.inf if reached.missed else mean
        best = min(means.values(), default=math.inf)
        for name, value in means.items():
            ratio = value / best if math.isfinite(value) else math.inf
            found.setdefault(name, {})[numbers.name] = ratio
    return found


def share_within(of_tasks: Mapping[str, float], factor: float) -> float:
    """Return on which fraction of its tasks an optimizer is within a factor of the best."""
    return sum(ratio <= factor for ratio in of_tasks.values()) / len(of_tasks)


def area(of_tasks: Mapping[str, float], most: float = MOST) -> float:
    """Return the mean height of a profile from τ = 1 to ``most``: 1 is best on every task."""
    below = [max(0.0, most - ratio) for ratio in of_tasks.values() if ratio <= most]
    return sum(below) / (most - 1) / len(of_tasks)


def geometric_mean(
    tasks: Sequence[TaskNumbers],
    first: tuple[Form, str],
    second: tuple[Form, str],
    cost: Cost,
) -> GeometricMean:
    """Return the geometric mean over tasks of the cost of one contender over another's.

    Over the tasks that both ran. A miss costs twice a whole run. Tasks are drawn again, and
    within each the seeds of both, so that the interval has both kinds of chance in it.
    """
    pairs = []
    for numbers in tasks:
        above = np.log(numbers.costs(*first, cost))
        below = np.log(numbers.costs(*second, cost))
        if len(above) and len(below) and np.isfinite(above).all() and np.isfinite(below).all():
            pairs.append((above, below))
    if not pairs:
        return GeometricMean(math.nan, math.nan, math.nan, 0)
    middle = float(np.mean([a.mean() - b.mean() for a, b in pairs]))
    random = np.random.RandomState(_SEED)
    drawn = np.empty((_DRAWS, len(pairs)))
    for at, (a, b) in enumerate(pairs):
        rows = random.randint(len(a), size=(_DRAWS, len(a)))
        columns = random.randint(len(b), size=(_DRAWS, len(b)))
        drawn[:, at] = a[rows].mean(1) - b[columns].mean(1)
    chosen = random.randint(len(pairs), size=(_DRAWS, len(pairs)))
    means = np.take_along_axis(drawn, chosen, 1).mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return GeometricMean(math.exp(middle), math.exp(low), math.exp(high), len(pairs))
