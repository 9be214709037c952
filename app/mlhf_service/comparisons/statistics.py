"""Numbers over the seeds of a group."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlhf_service.comparisons.schemas import Band, GroupCurve
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import select

MOST_POINTS = 2000
_AXES = ("samples", "epoch", "wall_seconds", "cpu_seconds")


def band(values: Sequence[float | None], unfinished: int = 0) -> Band:
    """Mean, deviation and range; a value that is absent or not finite makes the mean null.

    Args:
        values: One a seed, of those seeds that have it or ended without it.
        unfinished: How many seeds may yet have it.
    """
    fine = [float(v) for v in values if v is not None and math.isfinite(v)]
    missing = len(values) - len(fine)
    whole = bool(fine) and not missing
    return Band(
        n=len(fine),
        missing=missing,
        unfinished=unfinished,
        mean=mean_of(fine) if whole else None,
        std=_deviation(fine) if whole and len(fine) > 1 else None,
        min=min(fine, default=None),
        max=max(fine, default=None),
    )


def mean_of(values: Sequence[float]) -> float:
    """The mean of finite numbers, which is one itself."""
    try:
        return math.fsum(values) / len(values)
    except OverflowError:
        return math.fsum(value / len(values) for value in values)


def _deviation(values: Sequence[float]) -> float | None:
    """The sample's standard deviation; None where it is no finite number.

    Not by NumPy, which takes longer for a few numbers.
    """
    centre = mean_of(values)
    squares = [(value - centre) * (value - centre) for value in values]
    if not all(map(math.isfinite, squares)):
        return None
    variance = mean_of(squares) * (len(values) / (len(values) - 1))
    return math.sqrt(variance) if math.isfinite(variance) else None


def group_curve(seeds: Sequence[Sequence[Series]], most_points: int = MOST_POINTS) -> GroupCurve:
    """Mean and band over seeds, at the steps that all curves with points have.

    Curves of which points were left out have few steps in common: those are read off at the
    steps of the first, by straight lines between their points.

    Args:
        seeds: For each seed the curves of its runs, which are averaged first.
    """
    seeds = [curves for of in seeds if (curves := [one for one in of if len(one)])]
    series = [one for curves in seeds for one in curves]
    steps = _common_steps(series)

    def stacked(columns: Sequence[str], at: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Columns of each seed at these steps: seeds, columns, steps."""
        values = [_mean([_at(one, columns, at) for one in of]) for of in seeds]
        return np.array(values, dtype=np.float64).reshape(len(seeds), len(columns), len(at))

    values = stacked(["value"], steps)[:, 0]
    left_out = [one.total for one in series if one.downsampled]
    total = min(left_out) if left_out else len(steps)
    whole = np.asarray(np.isfinite(values).all(axis=0))
    mean = np.where(whole, _mean(values), np.nan)
    keep = select(mean, most_points)
    values, whole, mean, steps = values[:, keep], whole[keep], mean[keep], steps[keep]

    places = _mean(stacked(_AXES, steps)) if seeds else np.empty((len(_AXES), 0))
    samples, epochs, wall_seconds, cpu_seconds = places.tolist()

    def finite(column: Sequence[float]) -> list[float | None]:
        return [v if math.isfinite(v) else None for v in column]

    with np.errstate(invalid="ignore"):
        std = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(len(steps), np.nan)
    lowest = np.where(np.isfinite(values), values, np.inf).min(axis=0, initial=np.inf)
    highest = np.where(np.isfinite(values), values, -np.inf).max(axis=0, initial=-np.inf)
    return GroupCurve(
        seeds=len(seeds),
        steps=steps.tolist(),
        samples=samples,
        epochs=epochs,
        wall_seconds=wall_seconds,
        cpu_seconds=finite(cpu_seconds),
        mean=finite(mean.tolist()),
        std=finite(np.where(whole, std, np.nan).tolist()),
        min=finite(lowest.tolist()),
        max=finite(highest.tolist()),
        total_points=total,
        downsampled=len(keep) < total,
    )


def _common_steps(series: Sequence[Series]) -> npt.NDArray[np.int64]:
    steps = series[0].step if series else np.empty(0, dtype=np.int64)
    if len(series) > 1 and any(one.downsampled for one in series):
        first, last = max(one.step[0] for one in series), min(one.step[-1] for one in series)
        return np.asarray(steps[(steps >= first) & (steps <= last)])
    for one in series[1:]:
        if not np.array_equal(steps, one.step):
            steps = np.intersect1d(steps, one.step, assume_unique=True)
    return steps


def _at(
    one: Series, columns: Sequence[str], steps: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Columns at some steps."""
    values = [getattr(one, column) for column in columns]
    if not np.array_equal(one.step, steps):
        if one.downsampled:
            values = [np.interp(steps, one.step, column) for column in values]
        else:
            rows = np.searchsorted(one.step, steps)
            values = [column[rows] for column in values]
    return np.array(values, dtype=np.float64)


def _mean(values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """The mean over the first axis; empty if there is nothing."""
    found = np.asarray(values, dtype=np.float64)
    if len(found) == 0:
        return np.empty(found.shape[1:], dtype=np.float64)
    if len(found) == 1:
        return np.asarray(found[0])
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(found.mean(axis=0))
