"""The groups of points: how many each has, and on which faces of the box they lie. No torch."""

from typing import NamedTuple


class Face(NamedTuple):
    """A face of the box: where a coordinate of space is at one end of its interval."""

    axis: int
    upper: bool


def on_grids(counts: dict[str, int], coordinates: int, faces: int) -> dict[str, int]:
    """Return how many points grids of at most so many have in each group; at least one a face."""
    found = {"interior": side(counts["interior"], coordinates) ** coordinates}
    if counts["boundary"]:
        along = side(counts["boundary"] // faces, coordinates - 1)
        found["boundary"] = faces * along ** (coordinates - 1)
    if counts.get("initial"):
        along = side(counts["initial"], coordinates - 1)
        found["initial"] = along ** (coordinates - 1)
    return found


def side(count: int, dimension: int) -> int:
    """Return how many points a grid of at most so many has along each coordinate; at least 1."""
    found: int = max(1, round(count ** (1 / max(dimension, 1))))
    return found if found == 1 or found**dimension <= count else found - 1
