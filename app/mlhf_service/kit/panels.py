"""Figures of reports: a grid of panels with lines over the samples seen."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlhf_service.kit.drawing import AXIS_LABELS, COLOURS, dress, new_figure, render_small

Line = tuple[str, Sequence[float], Sequence[float]]  # label, x, y
Panel = tuple[str, str, Sequence[Line]]  # title, label of y, lines

_SOLID = 4  # lines of a panel; further ones are dashed


def panels_png(rows: Sequence[Sequence[Panel]]) -> bytes:
    """Draw a grid of panels as PNG, with a legend beside each row."""
    figure, grid = new_grid(len(rows), len(rows[0]))
    for row, places in zip(rows, grid, strict=True):
        for (title, label, lines), axes in zip(row, places, strict=True):
            for i, (name, xs, ys) in enumerate(lines):
                colour = COLOURS[i % len(COLOURS)]
                dashes: Any = "-" if i < _SOLID else (0, (4, 3))
                axes.plot(xs, ys, label=name, linewidth=1.4, color=colour, linestyle=dashes)
            axes.set_title(title, fontsize=9)
            dress(axes, AXIS_LABELS["samples"], label)
        places[-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return render_small(figure)


def new_grid(rows: int, columns: int) -> tuple[Any, Any]:
    """Make a figure of ``rows`` x ``columns`` axes."""
    width = 6.0 if columns == 1 else 10.5
    height = 3.9 if rows == 1 else 3.1 * rows
    figure = new_figure(width, height, dpi=100)
    return figure, figure.subplots(rows, columns, squeeze=False)


def save(figure: Any, path: Path) -> Path:
    path.write_bytes(render_small(figure))
    return path
