"""The picture stored with a run: its losses, and its accuracies where it has any."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from mlhf_service.kit.drawing import (
    COLOURS,
    dress,
    log_ticks,
    mark_above,
    new_figure,
    plain,
    render,
    short_ticks,
)
from mlhf_service.runs.curves import Series
from mlhf_service.runs.schemas import Position

_LOSSES = (
    ("batch_loss", "each batch", "#b9b9b9", 0.7),
    ("running_loss", "running mean", COLOURS[4], 1.4),
    ("train_loss", "training set", COLOURS[0], 2.0),
    ("test_loss", "test set", COLOURS[1], 2.0),
)
_META_LOSSES = (
    ("meta_loss_p", "preconditioner", COLOURS[0], 1.4),
    ("meta_loss_s", "damping", COLOURS[1], 1.4),
    ("meta_loss", "step", COLOURS[0], 1.4),
)
_ACCURACIES = (
    ("train_accuracy", "training set", COLOURS[0], 2.0),
    ("test_accuracy", "test set", COLOURS[1], 2.0),
)
DRAWN_POINTS = 2000


def run_figure(name: str, series: Sequence[Series], diverged_at: Position | None = None) -> bytes:
    """Draw one run as PNG, by samples; where it diverged its curves end in a cross."""
    found = {one.metric: one.at_most(DRAWN_POINTS) for one in series if len(one)}
    accuracies = any(metric in found for metric, *_ in _ACCURACIES)
    figure = new_figure(9.6 if accuracies else 6.0, 4.2)
    panels = figure.subplots(1, 2 if accuracies else 1, squeeze=False)[0]
    figure.suptitle(plain(name, 90), fontsize=11)

    meta = any(metric in found for metric, *_ in _META_LOSSES)
    drawn = _draw(panels[0], found, _META_LOSSES if meta else _LOSSES, diverged_at)
    dress(panels[0], "samples", "meta-loss" if meta else "loss")
    if drawn and min(float(np.min(y)) for _, y, _ in drawn) > 0:
        top = log_ticks(panels[0], max(float(y[0]) for _, y, _ in drawn))
        for x, y, colour in drawn:
            mark_above(panels[0], x, y, top, colour)
        if top is not None:
            panels[0].legend(frameon=False, fontsize=9)
    short_ticks(panels[0])
    if accuracies:
        _draw(panels[1], found, _ACCURACIES, diverged_at)
        dress(panels[1], "samples", "accuracy")
        short_ticks(panels[1])
    return render(figure)


def _draw(
    axes: Any,
    found: dict[str, Series],
    lines: Sequence[tuple[str, str, str, float]],
    diverged_at: Position | None,
) -> list[tuple[Any, Any, str]]:
    """Draw what there is of the lines; returns their places, values and colours."""
    drawn = []
    for metric, label, colour, width in lines:
        if metric not in found:
            continue
        one = found[metric]
        fine = np.isfinite(one.value)
        if not fine.any():
            continue
        x, y = one.samples[fine], one.value[fine]
        marker = "o" if len(x) <= 40 and width > 1 else ""
        axes.plot(x, y, color=colour, linewidth=width, label=label, marker=marker, markersize=3)
        drawn.append((x, y, colour))
        if cross := one.leaves("samples", diverged_at):
            axes.plot(*cross, "x", color=colour, markersize=7, zorder=4)
    if drawn and diverged_at is not None:
        label = f"diverged at step {diverged_at.step:,}"
        axes.axvline(diverged_at.samples, color="#555555", lw=0.8, linestyle=":", label=label)
    if drawn:
        axes.legend(frameon=False, fontsize=9)
    else:
        axes.text(0.5, 0.5, "nothing measured", ha="center", transform=axes.transAxes)
    return drawn
