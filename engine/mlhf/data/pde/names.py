"""What a formula about an unknown function u may name: coordinates, u, and its derivatives.

Coordinates are ``x1``, ``x2``, … (``x``, ``y``, ``z`` are the first three, where there are no
more), then ``t`` where there is time. ``u_x``, ``u_xy``, ``u_x1x1``, ``u_xxt`` are derivatives,
``lap_u`` is the sum of the second ones in space.
"""

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass

MOST_ORDERS = 4
_COORDINATE = re.compile(r"x\d+|[xyzt]")


@dataclass(frozen=True)
class Coordinates:
    """The coordinates of a point, in their order: those of space, then time.

    Attributes:
        dimension: How many are of space.
        time: Whether there is time.
    """

    dimension: int
    time: bool

    def __len__(self) -> int:
        return self.dimension + self.time

    @property
    def names(self) -> tuple[str, ...]:
        """Return what people are shown: x, y and z where these suffice."""
        space = "xyz"[: self.dimension] if self.dimension <= 3 else ()
        names = tuple(space) or tuple(f"x{i + 1}" for i in range(self.dimension))
        return (*names, "t") if self.time else names

    def index(self, name: str) -> int | None:
        """Return a coordinate's place; None where it is none."""
        if name == "t":
            return self.dimension if self.time else None
        if name[0] == "x" and name[1:].isdigit() and name[1] != "0":
            place = int(name[1:]) - 1
        elif name in ("x", "y", "z") and self.dimension <= 3:
            place = "xyz".index(name)
        else:
            return None
        return place if place < self.dimension else None

    def derivative(self, name: str) -> tuple[int, ...] | None:
        """Return in which coordinates ``u_…`` differentiates; None where it is no derivative."""
        if not name.startswith("u_"):
            return None
        rest = name[2:]
        tokens = _COORDINATE.findall(rest)
        if not tokens or "".join(tokens) != rest or len(tokens) > MOST_ORDERS:
            return None
        places = [self.index(token) for token in tokens]
        if any(place is None for place in places):
            return None
        return tuple(place for place in places if place is not None)


class Variables(Collection[str]):
    """The names that a formula may have.

    Args:
        coordinates: Those of a point.
        constants: Names of coefficients.
        unknown: Whether u and its derivatives are allowed.
    """

    def __init__(
        self, coordinates: Coordinates, constants: Collection[str], unknown: bool = False
    ) -> None:
        self._coordinates, self._constants = coordinates, constants
        self._unknown = unknown

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if name in self._constants or self._coordinates.index(name) is not None:
            return True
        if not self._unknown:
            return False
        return name in ("u", "lap_u") or self._coordinates.derivative(name) is not None

    def __iter__(self) -> Iterator[str]:
        """Yield those that a message lists: of derivatives only some."""
        names = self._coordinates.names
        yield from (*names[:8], *self._constants)
        if self._unknown:
            yield from ("u", "lap_u", *(f"u_{name}" for name in names[:8]))
            yield f"u_{names[0]}{names[0]}"

    def __len__(self) -> int:
        return len(list(iter(self)))
