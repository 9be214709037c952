"""Numbers over the seeds of a group."""

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from mlhf_service.comparisons.schemas import Band, GroupCurve
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import select

_MOST_POINTS = 2000


def band(values: Sequence[float | None]) -> Band:
    """Mean, deviation and range; a value that is absent or not finite makes the mean null."""
    fine = [float(v) for v in values if v is not None and math.isfinite(v)]
    missing = len(values) - len(fine)
    whole = bool(fine) and not missing
    return Band(
        n=len(fine),
        missing=missing,
        mean=math.fsum(fine) / len(fine) if whole else None,
        std=float(np.std(fine, ddof=1)) if whole and len(fine) > 1 else None,
        min=min(fine, default=None),
        max=max(fine, default=None),
    )


def group_curve(series: Sequence[Series]) -> GroupCurve:
    """Mean and band at the steps that all curves have; empty where one has no points."""
    steps = series[0].step
    for one in series[1:]:
        steps = np.intersect1d(steps, one.step)
    rows = [np.searchsorted(one.step, steps) for one in series]

    def stacked(column: str) -> npt.NDArray[np.float64]:
        parts = [getattr(one, column)[at] for one, at in zip(series, rows, strict=True)]
        return np.array(parts, dtype=np.float64)

    values = stacked("value")
    whole = np.isfinite(values).all(axis=0)
    mean = np.where(whole, _mean(values), np.nan)
    keep = select(mean, _MOST_POINTS)

    def kept(column: npt.NDArray[np.float64]) -> list[float]:
        return column[keep].tolist()  # type: ignore[no-any-return]

    def finite(column: npt.NDArray[np.float64]) -> list[float | None]:
        return [v if math.isfinite(v) else None for v in kept(column)]

    with np.errstate(invalid="ignore"):
        std = values.std(axis=0, ddof=1) if len(series) > 1 else np.full(len(steps), np.nan)
    return GroupCurve(
        steps=steps[keep].tolist(),
        samples=kept(stacked("samples").mean(axis=0)),
        epochs=kept(stacked("epoch").mean(axis=0)),
        wall_seconds=kept(stacked("wall_seconds").mean(axis=0)),
        mean=finite(mean),
        std=finite(np.where(whole, std, np.nan)),
        min=finite(np.where(np.isfinite(values), values, np.inf).min(axis=0, initial=np.inf)),
        max=finite(np.where(np.isfinite(values), values, -np.inf).max(axis=0, initial=-np.inf)),
        total_points=len(steps),
        downsampled=len(keep) < len(steps),
    )


def _mean(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(invalid="ignore", over="ignore"):
        return np.asarray(values.mean(axis=0))
