"""Figures of a comparison."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from bench.harness.statistics import Curve
from mlhf.ablation.statistics import mean
from mlhf_service.kit.drawing import AXIS_LABELS, COLOURS, dress
from mlhf_service.kit.panels import new_grid, save


def comparison(
    path: Path, curves: Mapping[str, Sequence[Curve]], x: Literal["samples", "wall_seconds"]
) -> Path:
    """Draw each optimizer's training loss, mean over seeds with lowest to highest shaded.

    All seeds are evaluated at the same samples; their seconds are averaged. Where a seed
    diverged, the line ends with the shortest curve.
    """
    figure, ((axes,),) = new_grid(1, 1)
    if len(curves) > 8:  # then the legend is beside the axes
        figure.set_size_inches(8.0, 4.4)
    starts = []
    for i, (name, runs) in enumerate(curves.items()):
        points = list(zip(*(c.points for c in runs), strict=False))
        losses = [[p["values"]["train_loss"] for p in at] for at in points]
        shown = [k for k, at in enumerate(losses) if all(map(math.isfinite, at))]
        if not shown:
            continue
        xs = [mean([p[x] for p in points[k]]) for k in shown]
        style = {"color": COLOURS[i % 7], "linestyle": "-" if i < 7 else "--"}
        axes.plot(xs, [mean(losses[k]) for k in shown], label=name, linewidth=1.6, **style)
        low, high = [min(losses[k]) for k in shown], [max(losses[k]) for k in shown]
        axes.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        starts.append(mean(losses[shown[0]]))
    axes.set_yscale("log")
    if starts and axes.get_ylim()[1] > 3 * max(starts):  # diverging curves leave the picture
        axes.set_ylim(top=3 * max(starts))
    if x == "wall_seconds":
        axes.set_xscale("log")
    dress(axes, AXIS_LABELS[x], "training loss")
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if len(curves) > 8 else {}
    axes.legend(fontsize=8, frameon=False, **beside)
    return save(figure, path)
