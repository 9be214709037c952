"""Numbers over the seeds of a group."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlhf_service.comparisons.schemas import Band, GroupCurve
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import select

MOST_POINTS = 2000


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
        mean=math.fsum(fine) / len(fine) if whole else None,
        std=float(np.std(fine, ddof=1)) if whole and len(fine) > 1 else None,
        min=min(fine, default=None),
        max=max(fine, default=None),
    )


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

    def of_seed(curves: Sequence[Series], column: str) -> npt.NDArray[np.float64]:
        return _mean(np.array([_at(one, column, steps) for one in curves], dtype=np.float64))

    def stacked(column: str) -> npt.NDArray[np.float64]:
        values = [of_seed(curves, column) for curves in seeds]
        return np.array(values, dtype=np.float64).reshape(len(seeds), len(steps))

    values = stacked("value")
    left_out = [one.total for one in series if one.downsampled]
    total = min(left_out) if left_out else len(steps)
    whole = np.isfinite(values).all(axis=0)
    mean = np.where(whole, _mean(values), np.nan)
    keep = select(mean, most_points)

    def kept(column: npt.NDArray[np.float64]) -> list[float]:
        return column[keep].tolist()  # type: ignore[no-any-return]

    def finite(column: npt.NDArray[np.float64]) -> list[float | None]:
        return [v if math.isfinite(v) else None for v in kept(column)]

    with np.errstate(invalid="ignore"):
        std = values.std(axis=0, ddof=1) if len(seeds) > 1 else np.full(len(steps), np.nan)
    return GroupCurve(
        seeds=len(seeds),
        steps=steps[keep].tolist(),
        samples=kept(_mean(stacked("samples"))),
        epochs=kept(_mean(stacked("epoch"))),
        wall_seconds=kept(_mean(stacked("wall_seconds"))),
        cpu_seconds=finite(_mean(stacked("cpu_seconds"))),
        mean=finite(mean),
        std=finite(np.where(whole, std, np.nan)),
        min=finite(np.where(np.isfinite(values), values, np.inf).min(axis=0, initial=np.inf)),
        max=finite(np.where(np.isfinite(values), values, -np.inf).max(axis=0, initial=-np.inf)),
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


def _at(one: Series, column: str, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
    """A column at some steps."""
    values = np.asarray(getattr(one, column), dtype=np.float64)
    if one.downsampled and not np.array_equal(one.step, steps):
        return np.asarray(np.interp(steps, one.step, values))
    return values[np.searchsorted(one.step, steps)]


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """The mean over the first axis; empty if there is nothing."""
    if not len(values):
        return np.empty(values.shape[1:], dtype=np.float64)
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(values.mean(axis=0))
