"""The charts of a comparison as data, drawn by a script in the browser."""

from typing import Any

import numpy as np

from mlhf.core.metrics import higher_is_better
from mlhf_service.comparisons.legend import legend
from mlhf_service.comparisons.schemas import ComparedGroup, ComparedRun, GroupCurve
from mlhf_service.comparisons.service import Compared
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import select
from mlhf_service.runs.metrics import Axis, label

_MOST_POINTS = 500


def charts(compared: Compared, x: Axis = "wall_seconds") -> dict[str, Any]:
    """Each group's mean and band, where single runs went on alone, and where they diverged.

    By samples, and by ``x`` beside it.
    """
    comparison = compared.comparison
    runs = {run.run_id: run for run in comparison.runs}
    return {
        "metric": label(comparison.metric),
        "x": x,
        "target": comparison.target,
        "log": not higher_is_better(comparison.metric),
        "groups": [
            _group(group, runs, [compared.curves[run_id] for run_id in group.run_ids], x)
            for group in comparison.groups
        ],
    }


def _group(
    group: ComparedGroup, runs: dict[str, ComparedRun], series: list[Series], x: Axis
) -> dict[str, Any]:
    curve = group.curve
    until = curve.steps[-1] if curve.steps else -1
    return {
        "label": legend(group, runs),
        "axes": {
            axis: {
                **_mean(curve, axis, group.n > 1),
                "rests": [rest for one in series if len(rest := _rest(one, until, axis)) > 1],
                "crosses": [
                    cross
                    for one in series
                    if (cross := one.leaves(axis, runs[one.run_id].diverged_at))
                ],
            }
            for axis in dict.fromkeys(("samples", x))
        },
    }


def _mean(curve: GroupCurve, axis: Axis, banded: bool) -> dict[str, Any]:
    mean = np.array([np.nan if v is None else v for v in curve.mean], dtype=np.float64)
    keep = select(mean, _MOST_POINTS).tolist()
    x: list[float | None] = getattr(curve, axis)
    keep = [i for i in keep if x[i] is not None]
    return {
        "points": [(x[i], curve.mean[i]) for i in keep],
        "band": [(x[i], curve.min[i], curve.max[i]) for i in keep] if banded else None,
    }


def _rest(one: Series, until: int, axis: Axis) -> list[tuple[float, float | None]]:
    """A run's curve from where not all runs of its group have one."""
    pairs = one.on(axis).at_most(_MOST_POINTS)
    return [
        (x, y if isinstance(y, float) else None)
        for step, (x, y) in zip(pairs.step.tolist(), pairs.pairs(axis), strict=True)
        if step >= until
    ]
