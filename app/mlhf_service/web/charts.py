"""The charts of a comparison as data, drawn by a script in the browser."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlhf.core.metrics import higher_is_better
from mlhf_service.comparisons.legend import legend
from mlhf_service.comparisons.schemas import ComparedGroup, ComparedRun, GroupCurve
from mlhf_service.comparisons.service import Compared
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import select
from mlhf_service.runs.metrics import Axis, label
from mlhf_service.web.views import parameters

_MOST_POINTS, _LEAST_POINTS, _ALL_POINTS = 500, 100, 10_000


def most_points(groups: int) -> int:
    """Of one line, where there are so many: a page holds a bounded number of points."""
    return min(_MOST_POINTS, max(_LEAST_POINTS, _ALL_POINTS // max(1, groups)))


def charts(compared: Compared, x: Axis = "wall_seconds") -> dict[str, Any]:
    """Each group's mean and band, where single runs went on alone, and where they diverged.

    By samples, and by ``x`` beside it.
    """
    comparison = compared.comparison
    runs = {run.run_id: run for run in comparison.runs}
    most = most_points(len(comparison.groups))
    return {
        "metric": label(comparison.metric),
        "x": x,
        "target": comparison.target,
        "log": not higher_is_better(comparison.metric),
        "parameters": _parameters(compared),
        "groups": [
            _group(group, runs, [compared.curves[run_id] for run_id in group.run_ids], x, most)
            for group in comparison.groups
        ],
    }


def _group(
    group: ComparedGroup,
    runs: dict[str, ComparedRun],
    series: list[Series],
    x: Axis,
    most: int,
) -> dict[str, Any]:
    curve = group.curve
    until = curve.steps[-1] if curve.steps else -1
    return {
        "label": legend(group, runs),
        "axes": {
            axis: {
                **_mean(curve, axis, group.n > 1, most),
                "reached": _reached(group, axis),
                "rests": [rest for one in series if len(rest := _rest(one, until, axis, most)) > 1],
                "crosses": [
                    cross
                    for one in series
                    if (cross := one.leaves(axis, runs[one.run_id].diverged_at))
                ],
            }
            for axis in dict.fromkeys(("samples", x))
        },
    }


def _reached(group: ComparedGroup, axis: Axis) -> float | None:
    """Where a group reached the target: the mean over its seeds."""
    bands = group.to_target
    return getattr(bands, axis).mean if bands is not None and hasattr(bands, axis) else None


def _parameters(compared: Compared) -> dict[str, Any]:
    """The hyperparameters in which the runs differ, and each run's, with its best value."""
    by_id = {run.run_id: run for run in compared.comparison.runs}
    metric = compared.comparison.metric
    shown = [
        (index, group.label, run, parameters(run.config))
        for index, group in enumerate(compared.groups)
        for run in group.runs
    ]
    names = dict.fromkeys(name for *_, flat in shown for name in flat)
    differing = [name for name in names if len({repr(flat.get(name)) for *_, flat in shown}) > 1]
    return {
        "names": differing,
        "runs": [
            {
                "label": label,
                "group": index,
                "seed": run.seed,
                "params": {name: flat[name] for name in differing if name in flat},
                "value": measure.best if (measure := by_id[run.id].measures.get(metric)) else None,
            }
            for index, label, run, flat in shown
        ],
    }


def _mean(curve: GroupCurve, axis: Axis, banded: bool, most: int) -> dict[str, Any]:
    mean = np.array([np.nan if v is None else v for v in curve.mean], dtype=np.float64)
    keep = select(mean, most).tolist()
    x: list[float | None] = getattr(curve, axis)
    keep = [i for i in keep if x[i] is not None]
    places = _short([x[i] for i in keep])
    means = _short([curve.mean[i] for i in keep])
    if not banded:
        return {"points": list(zip(places, means, strict=True)), "band": None}
    lows, highs = (_short([edge[i] for i in keep]) for edge in (curve.min, curve.max))
    return {
        "points": list(zip(places, means, strict=True)),
        "band": list(zip(places, lows, highs, strict=True)),
    }


def _short(values: Sequence[float | None]) -> list[float | None]:
    """Values to six significant digits, which no screen can tell from all; NaN is None."""
    found = np.array([np.nan if v is None else v for v in values], dtype=np.float64)
    finite = np.isfinite(found)
    sizes = np.abs(np.where(finite & (found != 0), found, 1.0))
    scale = 10.0 ** np.clip(5 - np.floor(np.log10(sizes)), 0, 22)
    rounded = np.where(finite, np.round(np.where(finite, found, 0.0) * scale) / scale, found)
    return [v if ok else None for v, ok in zip(rounded.tolist(), finite.tolist(), strict=True)]


def _rest(
    one: Series, until: int, axis: Axis, most: int
) -> list[tuple[float | None, float | None]]:
    """A run's curve from where not all runs of its group have one."""
    if not len(one) or one.step[-1] <= until:
        return []
    pairs = one.on(axis).at_most(most)
    kept = [
        (x, y if isinstance(y, float) else None)
        for step, (x, y) in zip(pairs.step.tolist(), pairs.pairs(axis), strict=True)
        if step >= until
    ]
    return list(zip(_short([x for x, _ in kept]), _short([y for _, y in kept]), strict=True))
