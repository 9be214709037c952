"""The figure of performance profiles."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from bench.wide.profiles import MOST, share_within
from mlhf_service.kit.drawing import COLOURS, dress
from mlhf_service.kit.panels import new_grid, save

_STEPS = 200


def draw_profiles(
    path: Path, panels: Sequence[tuple[str, Mapping[str, Mapping[str, float]]]]
) -> Path:
    """Draw a panel for each kind of cost: the share of tasks within a factor of the best."""
    figure, grid = new_grid(1, len(panels))
    figure.set_size_inches(5.0 * len(panels) + 2.0, 4.2)
    factors = [MOST ** (at / _STEPS) for at in range(_STEPS + 1)]
    for axes, (cost, found) in zip(grid[0], panels, strict=True):
        for at, (name, of_tasks) in enumerate(found.items()):
            shares = [share_within(of_tasks, factor) for factor in factors]
            style = {"color": COLOURS[at % 7], "linestyle": "-" if at < 7 else "--"}
            axes.step(factors, shares, where="post", label=name, linewidth=1.6, **style)
        axes.set_xscale("log")
        axes.set_xlim(1.0, MOST)
        axes.set_xticks([1, 1.5, 2, 3, 4], labels=["1", "1.5", "2", "3", "4"])
        axes.minorticks_off()
        axes.set_ylim(0.0, 1.0 + math.ulp(1.0))
        dress(axes, f"{cost}, over the best optimizer's", "share of tasks")
    grid[0][-1].legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    return save(figure, path)
