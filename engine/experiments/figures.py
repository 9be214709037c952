"""Figures of a report. matplotlib is imported where one is drawn, and used without pyplot."""

import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np

from engine.experiments.statistics import Curve, mean

# Okabe and Ito's colours, told apart by colour-blind readers too; then again, dashed.
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_LABELS = {"samples": "samples seen", "wall_seconds": "training time (s)"}
Line = tuple[str, Sequence[float], Sequence[float]]  # label, x, y
Panel = tuple[str, str, Sequence[Line]]  # title, label of y, lines


def comparison(
    path: Path, curves: Mapping[str, Sequence[Curve]], x: Literal["samples", "wall_seconds"]
) -> Path:
    """Draw each optimizer's training loss, mean over seeds with lowest to highest shaded.

    Evaluations of different seeds are at the same samples; their seconds are averaged. Where
    a seed diverged, the line ends with the shortest curve.
    """
    figure, ((axes,),) = _figure(1, 1)
    if len(curves) > 8:  # then the legend stands beside
        figure.set_size_inches(8.0, 4.4)
    starts = []
    for i, (name, runs) in enumerate(curves.items()):
        points = list(zip(*(c.points for c in runs), strict=False))
        losses = [[p["values"]["train_loss"] for p in at] for at in points]
        shown = [k for k, at in enumerate(losses) if all(map(math.isfinite, at))]
        if not shown:
            continue
        xs = [mean([p[x] for p in points[k]]) for k in shown]
        style = {"color": _COLOURS[i % 7], "linestyle": "-" if i < 7 else "--"}
        axes.plot(xs, [mean(losses[k]) for k in shown], label=name, linewidth=1.6, **style)
        low, high = [min(losses[k]) for k in shown], [max(losses[k]) for k in shown]
        axes.fill_between(xs, low, high, color=style["color"], alpha=0.15, linewidth=0)
        starts.append(mean(losses[shown[0]]))
    axes.set_yscale("log")
    if starts and axes.get_ylim()[1] > 3 * max(starts):  # what diverges leaves the picture
        axes.set_ylim(top=3 * max(starts))
    if x == "wall_seconds":
        axes.set_xscale("log")
    _dress(axes, _LABELS[x], "training loss")
    beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)} if len(curves) > 8 else {}
    axes.legend(fontsize=8, frameon=False, **beside)
    return _save(figure, path)


def panels(path: Path, rows: Sequence[Sequence[Panel]]) -> Path:
    """Draw a grid of panels by samples seen, with a legend beside each row."""
    path.write_bytes(panels_png(rows))
    return path


def panels_png(rows: Sequence[Sequence[Panel]]) -> bytes:
    """Draw the same as the content of a PNG file."""
    figure, grid = _figure(len(rows), len(rows[0]))
    for row, places in zip(rows, grid, strict=True):
        for (title, label, lines), axes in zip(row, places, strict=True):
            for i, (name, xs, ys) in enumerate(lines):
                axes.plot(xs, ys, label=name, linewidth=1.4, color=_COLOURS[i % 7],
                          linestyle="-" if i < 4 else (0, (4, 3)))  # fmt: skip
            axes.set_title(title, fontsize=9)
            _dress(axes, _LABELS["samples"], label)
        beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        places[-1].legend(fontsize=8, frameon=False, **beside)
    return _png(figure)


def _figure(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 if columns == 1 else 10.5, 3.9 if rows == 1 else 3.1 * rows),
                    dpi=100, layout="constrained", facecolor="white")  # fmt: skip
    return figure, figure.subplots(rows, columns, squeeze=False)


def _dress(axes: Any, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color="#e3e3e3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _save(figure: Any, path: Path) -> Path:
    path.write_bytes(_png(figure))
    return path


def _png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    # Few colours are used: a palette makes a third of the file, to be kept in a repository.
    image.quantize(128).save(out, format="PNG", optimize=True)
    return out.getvalue()
