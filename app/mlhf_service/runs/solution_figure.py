"""The picture of what a network has found of an equation: solution, truth, and error."""

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from mlhf.data.specs import DATASETS
from mlhf_service.kit.drawing import COLOURS, dress, new_figure, plain, render
from mlhf_service.runs import outcomes
from mlhf_service.runs.models import Run

NAME, SOURCE = "solution.png", "solution.npz"
_WIDTH, _HEIGHT = 4.0, 3.4  # of a panel, in inches
_SMALLEST = 1e-17  # error that is drawn


def has_solution(run: Run) -> bool:
    """Whether a run has ended with a solution of an equation."""
    name = run.config.get("dataset", {}).get("name")
    found = DATASETS.get(name) if isinstance(name, str) else None
    if found is None or not found.residuals:
        return False
    return run.status == "succeeded" or outcomes.diverged(run)


def solution_png(name: str, archive: bytes) -> bytes:
    """Draw an archive as the trainer writes it (``mlhf.training.pde.solution``).

    Args:
        name: The run's.
        archive: The bytes of the file.
    """
    with np.load(io.BytesIO(archive), allow_pickle=False) as arrays:
        found = {key: arrays[key] for key in arrays.files}
    slices = sum(key.startswith("axes_") for key in found)
    columns = 3 if "solution_0" in found else 1
    line = len(found["axes_0"]) == 1
    columns = min(columns, 2) if line else columns
    figure = new_figure(_WIDTH * columns, _HEIGHT * slices + 0.4)
    panels = figure.subplots(slices, columns, squeeze=False)
    figure.suptitle(plain(name, 90), fontsize=11)
    for number in range(slices):
        part = {
            key.removesuffix(f"_{number}"): value
            for key, value in found.items()
            if key.endswith(f"_{number}")
        }
        draw = _line if len(part["axes"]) == 1 else _square
        draw(figure, panels[number], part, [str(each) for each in found["names"]])
    return render(figure)


def _line(figure: Any, panels: Any, part: Mapping[str, Any], names: list[str]) -> None:
    x, u = part["x"], part["u"]
    label = names[int(part["axes"][0])]
    if "solution" in part:
        panels[0].plot(x, part["solution"], color="#b9b9b9", linewidth=4, label="solution")
        error = np.maximum(np.abs(u - part["solution"]), _SMALLEST)
        panels[1].semilogy(x, error, color=COLOURS[1])
        dress(panels[1], label, "|error|")
    panels[0].plot(x, u, color=COLOURS[0], label="network")
    panels[0].legend(frameon=False, fontsize=9)
    dress(panels[0], label, "u")


def _square(figure: Any, panels: Any, part: Mapping[str, Any], names: list[str]) -> None:
    shown = [("network", part["u"], "viridis")]
    if "solution" in part:
        shown.append(("solution", part["solution"], "viridis"))
        shown.append(("|error|", np.abs(part["u"] - part["solution"]), "magma"))
    # Time goes to the right; both pictures of u have one scale.
    first, second = (int(axis) for axis in part["axes"])
    across = names[second] == "t"
    limits = _limits(part.get("solution", part["u"]))
    for axes, (title, values, colours) in zip(panels, shown, strict=True):
        x, y, z = part["x"], part["y"], values.T
        if across:
            x, y, z = y, x, values
        bounds = limits if colours == "viridis" else (0.0, _limits(values)[1])
        image = axes.pcolormesh(
            x, y, z, cmap=colours, vmin=bounds[0], vmax=bounds[1], shading="gouraud"
        )
        bar = figure.colorbar(image, ax=axes)
        bar.ax.tick_params(labelsize=8)
        axes.set_title(f"{title}{_where(part, names)}", fontsize=9)
        axes.set_xlabel(names[second if across else first])
        axes.set_ylabel(names[first if across else second])
        axes.tick_params(labelsize=8)


def _where(part: Mapping[str, Any], names: list[str]) -> str:
    """Say where the other coordinates stand, of a slice."""
    others = [i for i in range(len(names)) if i not in part["axes"].tolist()]
    if not others:
        return ""
    values = {f"{part['at'][i]:.3g}" for i in others}
    if len(others) > 2 and len(values) == 1:
        return f" at all others = {values.pop()}"
    return " at " + ", ".join(f"{names[i]} = {part['at'][i]:.3g}" for i in others[:3])


def _limits(values: Any) -> tuple[float, float]:
    finite = values[np.isfinite(values)]
    if not finite.size:
        return 0.0, 1.0
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if high > low else (low, low + max(abs(low), 1e-12))
