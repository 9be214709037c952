"""What a network has found, on grids to be drawn: an archive of NumPy arrays.

Of one coordinate a line, of two a square. Of more, slices through the middle of the others: the
first coordinate with the last, and with the second.

``format``: 1. ``names``: the coordinates'. For the slice number k: ``axes_k``, the places of its
coordinates; ``x_k`` and, of a square, ``y_k``, their values; ``at_k``, the point that it goes
through; ``u_k``, the network's values, and ``solution_k`` where it is known.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn

from mlhf.core import atomic_files
from mlhf.curvature.forward_pass import evaluated
from mlhf.data.arrays import Array
from mlhf.data.pde.family import grid, solution_values
from mlhf.training.pde.data import PdeData

SOLUTION = "solution.npz"
_FORMAT = 1
_LINE, _SQUARE = 512, 101


def write_solution(path: Path, network: nn.Module, data: PdeData) -> None:
    """Write the archive.

    Args:
        path: The file.
        network: Takes scaled coordinates; in evaluation mode.
        data: The equation.
    """
    names = np.array(data.params.coordinates.names)
    arrays: dict[str, Array] = {"format": np.array(_FORMAT), "names": names}
    for number, axes in enumerate(_slices(len(data.params.box))):
        found = _slice(network, data, axes)
        arrays |= {f"{name}_{number}": values for name, values in found.items()}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    atomic_files.write(path, buffer.getvalue())


def _slices(d: int) -> list[tuple[int, ...]]:
    if d <= 2:
        return [tuple(range(d))]
    return [(0, d - 1), (0, 1)]


def _slice(network: nn.Module, data: PdeData, axes: tuple[int, ...]) -> dict[str, Array]:
    count = _LINE if len(axes) == 1 else _SQUARE
    box = data.params.box
    values = [np.linspace(box[axis][0], box[axis][1], count) for axis in axes]
    at = np.array(box).mean(1)
    points = np.repeat(at[None], count ** len(axes), 0)
    points[:, axes] = grid(values)
    like = next(network.parameters())
    middle, half = (np.array(data.preprocessing[key]) for key in ("mean", "std"))
    x = torch.tensor((points - middle) / half, dtype=like.dtype, device=like.device)
    shape = (count,) * len(axes)
    found = {
        "axes": np.array(axes),
        "x": values[0],
        "at": at,
        "u": evaluated(network, x).double().cpu().numpy().reshape(shape),
    }
    if len(axes) == 2:
        found["y"] = values[1]
    if data.params.has_solution:
        found["solution"] = np.asarray(solution_values(data.params, points)).reshape(shape)
    return found
