"""The picture of a comparison: each group's mean and band over its seeds."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from mlhf.core.metrics import higher_is_better
from mlhf_service.comparisons.legend import legend
from mlhf_service.comparisons.schemas import ComparedGroup, ComparedRun
from mlhf_service.comparisons.service import Compared
from mlhf_service.kit.drawing import (
    AXIS_LABELS,
    dress,
    log_ticks,
    mark_above,
    new_figure,
    plain,
    render,
    short_ticks,
    style_of,
)
from mlhf_service.runs.curves import Series
from mlhf_service.runs.metrics import Axis
from mlhf_service.runs.metrics import label as metric_label

_LEGEND_ROWS = 18


def comparison_figure(
    compared: Compared,
    x: Axis | None = None,
    form: Literal["png", "svg"] = "png",
) -> bytes:
    """Draw a comparison by samples and by seconds, or by ``x`` alone."""
    axes: Sequence[Axis] = ("samples", "wall_seconds") if x is None else (x,)
    metric = compared.comparison.metric
    columns = math.ceil(len(compared.groups) / _LEGEND_ROWS)
    figure = new_figure(4.9 * len(axes) + 2.4 * columns + 0.6, 4.6)
    panels = figure.subplots(1, len(axes), sharey=True, squeeze=False)[0]
    figure.suptitle(_title(compared), fontsize=11)
    runs = {run.run_id: run for run in compared.comparison.runs}
    for number, (panel, axis) in enumerate(zip(panels, axes, strict=True)):
        for index, group in enumerate(compared.comparison.groups):
            label = plain(legend(group, runs, 38), 90)
            _draw_group(panel, axis, group, label, style_of(index))
            for run_id in group.run_ids:
                one = compared.curves[run_id].on(axis)
                _draw_rest(panel, axis, one, runs[run_id], group, style_of(index)[0])
        _draw_target(panel, compared.comparison.target)
        dress(panel, AXIS_LABELS[axis], metric_label(metric) if number == 0 else "")
        short_ticks(panel)
    values = [v for s in compared.curves.values() if len(v := s.value[np.isfinite(s.value)])]
    if values and not higher_is_better(metric) and min(float(v.min()) for v in values) > 0:
        for panel, axis in zip(panels, axes, strict=True):
            top = log_ticks(panel, max(float(v[0]) for v in values))
            for index, group in enumerate(compared.comparison.groups):
                for run_id in group.run_ids:
                    one = compared.curves[run_id]
                    mark_above(panel, one.axis(axis), one.value, top, style_of(index)[0])
    handles, labels = panels[0].get_legend_handles_labels()
    if handles:
        figure.legend(
            handles, labels, loc="outside right upper", frameon=False, fontsize=9, ncols=columns
        )
    else:
        panels[0].text(0.5, 0.5, "nothing measured yet", ha="center", transform=panels[0].transAxes)
    return render(figure, form)


def _draw_group(
    panel: Any, axis: Axis, group: ComparedGroup, label: str, style: tuple[str, Any]
) -> None:
    colour, dashes = style
    curve = group.curve
    x, mean, low, high = (
        np.array([math.nan if v is None else v for v in column], dtype=float)
        for column in (getattr(curve, axis), curve.mean, curve.min, curve.max)
    )
    marker = "o" if 0 < len(x) <= 30 else ""
    panel.plot(
        x,
        mean,
        color=colour,
        linestyle=dashes,
        linewidth=1.9,
        marker=marker,
        markersize=3,
        label=label,
        zorder=3,
    )
    if group.n > 1:
        panel.fill_between(x, low, high, color=colour, alpha=0.16, linewidth=0, zorder=2)


def _draw_rest(
    panel: Any, axis: Axis, one: Series, run: ComparedRun, group: ComparedGroup, colour: str
) -> None:
    """Thinly, where one run went on alone; and a cross where it left the finite numbers."""
    until = group.curve.steps[-1] if group.curve.steps else -1
    at = one.axis(axis)
    rest = np.isfinite(one.value) & (one.step >= until)
    if rest.sum() > 1:
        panel.plot(at[rest], one.value[rest], color=colour, linewidth=0.8, alpha=0.6, zorder=2)
    if cross := one.leaves(axis, run.diverged_at):
        panel.plot(*cross, "x", color=colour, markersize=7, zorder=4)


def _draw_target(panel: Any, target: float | None) -> None:
    if target is not None:
        panel.axhline(
            target,
            color="#555555",
            linewidth=1,
            linestyle=(0, (4, 3)),
            zorder=1,
            label=f"target {target:g}",
        )


def _title(compared: Compared) -> str:
    """What all runs share: the model and the data set; else nothing but the metric."""
    runs = compared.comparison.runs
    shared = [
        names.pop()
        for names in ({r.model for r in runs}, {r.dataset_name for r in runs})
        if len(names) == 1
    ]
    what = metric_label(compared.comparison.metric)
    return plain(f"{what}: {' on '.join(shared)}" if shared else what, 90)
