"""Figures of a report. matplotlib is imported where one is drawn, and used without pyplot."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mlhf.ablation.report import Panel

# Okabe and Ito's colours, told apart by colour-blind readers too; then again, dashed.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
LABELS = {"samples": "samples seen", "wall_seconds": "training time (s)"}


def panels(path: Path, rows: Sequence[Sequence[Panel]]) -> Path:
    """Draw a grid of panels by samples seen, with a legend beside each row."""
    path.write_bytes(panels_png(rows))
    return path


def panels_png(rows: Sequence[Sequence[Panel]]) -> bytes:
    """Draw the same as the content of a PNG file."""
    figure, grid = new_figure(len(rows), len(rows[0]))
    for row, places in zip(rows, grid, strict=True):
        for (title, label, lines), axes in zip(row, places, strict=True):
            for i, (name, xs, ys) in enumerate(lines):
                axes.plot(xs, ys, label=name, linewidth=1.4, color=COLOURS[i % 7],
                          linestyle="-" if i < 4 else (0, (4, 3)))  # fmt: skip
            axes.set_title(title, fontsize=9)
            dress(axes, LABELS["samples"], label)
        beside = {"loc": "center left", "bbox_to_anchor": (1.0, 0.5)}
        places[-1].legend(fontsize=8, frameon=False, **beside)
    return png(figure)


def new_figure(rows: int, columns: int) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.0 if columns == 1 else 10.5, 3.9 if rows == 1 else 3.1 * rows),
                    dpi=100, layout="constrained", facecolor="white")  # fmt: skip
    return figure, figure.subplots(rows, columns, squeeze=False)


def dress(axes: Any, xlabel: str, ylabel: str) -> None:
    axes.set_xlabel(xlabel)
    axes.set_ylabel(ylabel)
    axes.grid(True, color="#e3e3e3", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def save(figure: Any, path: Path) -> Path:
    path.write_bytes(png(figure))
    return path


def png(figure: Any) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from PIL import Image

    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    out = io.BytesIO()
    # Few colours are used: a palette makes a third of the file, to be kept in a repository.
    image.quantize(128).save(out, format="PNG", optimize=True)
    return out.getvalue()
