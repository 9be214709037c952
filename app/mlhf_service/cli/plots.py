"""Curves as text, for a terminal of any width."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # of a Braille character
_BLANK = 0x2800
_MARKS = "•×+o*#%@"
_LOG_FROM = 20.0  # largest by smallest value, from where on a loss is drawn on a log axis


@dataclass(frozen=True)
class Line:
    """One curve: places on the axis, and values; what is not finite is left out."""

    label: str
    x: Sequence[float]
    y: Sequence[float]

    def finite(self) -> list[tuple[float, float]]:
        pairs = zip(self.x, self.y, strict=True)
        return [(x, y) for x, y in pairs if math.isfinite(x) and math.isfinite(y)]


def plot(lines: Sequence[Line], title: str, axis: str, width: int = 80, height: int = 12) -> str:
    """Draw curves in one frame, with the ends of both axes.

    One is drawn by dots of Braille, eight to a character; several by a mark each, which the
    legend below tells. The axis of values is logarithmic where they are positive and wide apart.
    """
    points = [line.finite() for line in lines]
    known = [pair for one in points for pair in one]
    if not known:
        return f"{title}: nothing that could be drawn"
    low, high = min(y for _, y in known), max(y for _, y in known)
    logarithmic = low > 0 and high / low >= _LOG_FROM
    across = _scale(min(x for x, _ in known), max(x for x, _ in known))
    up = _scale(low, high, logarithmic)
    ends = [f"{value:.4g}" for value in (high, low)]
    margin = max(map(len, ends))
    columns = max(10, width - margin - 2)
    if len(lines) == 1:
        rows = _braille([(across(x), up(y)) for x, y in points[0]], columns, height)
    else:
        rows = _marked([[(across(x), up(y)) for x, y in one] for one in points], columns, height)
    left = [ends[0], *[""] * (height - 2), ends[1]]
    first, last = (f"{value:.4g}" for value in (_least(known), _most(known)))
    scale = f"{axis}{', log values' if logarithmic else ''}"
    bottom = f"{first} {scale.center(max(0, columns - len(first) - len(last) - 2))} {last}"
    picture = [
        title,
        *(f"{text:>{margin}} │{row}".rstrip() for text, row in zip(left, rows, strict=True)),
        " " * (margin + 1) + "└" + "─" * columns,
        " " * (margin + 2) + bottom,
    ]
    if len(lines) > 1:
        picture += [f"  {_mark(i)} {line.label}" for i, line in enumerate(lines)]
    return "\n".join(picture)


def _least(points: Sequence[tuple[float, float]]) -> float:
    return min(x for x, _ in points)


def _most(points: Sequence[tuple[float, float]]) -> float:
    return max(x for x, _ in points)


def _scale(low: float, high: float, logarithmic: bool = False) -> Callable[[float], float]:
    """Maps a range to [0, 1]; a range of one value to its middle."""
    of = math.log if logarithmic else float
    start, end = of(low) / 2, of(high) / 2  # halved: the whole range may be infinite

    def place(value: float) -> float:
        return (of(value) / 2 - start) / (end - start) if end > start else 0.5

    return place


def _braille(points: Sequence[tuple[float, float]], columns: int, height: int) -> list[str]:
    cells = [[_BLANK] * columns for _ in range(height)]
    for x, y in _between(points, 2 * columns, 4 * height):
        cells[y // 4][x // 2] |= _DOTS[y % 4][x % 2]
    return ["".join(" " if cell == _BLANK else chr(cell) for cell in row) for row in cells]


def _marked(lines: Sequence[Sequence[tuple[float, float]]], columns: int, height: int) -> list[str]:
    cells = [[" "] * columns for _ in range(height)]
    for i, points in enumerate(lines):
        for x, y in _between(points, columns, height):
            cells[y][x] = _mark(i)
    return ["".join(row) for row in cells]


def _between(
    points: Sequence[tuple[float, float]], columns: int, rows: int
) -> Iterator[tuple[int, int]]:
    """The cells that straight lines from point to point go through."""
    places = [(round(x * (columns - 1)), round((1 - y) * (rows - 1))) for x, y in points]
    for (x, y), (next_x, next_y) in zip(places, [*places[1:], *places[-1:]], strict=True):
        steps = max(abs(next_x - x), abs(next_y - y), 1)
        for i in range(steps + 1):
            yield x + round((next_x - x) * i / steps), y + round((next_y - y) * i / steps)


def _mark(index: int) -> str:
    return _MARKS[index] if index < len(_MARKS) else chr(ord("a") + (index - len(_MARKS)) % 26)
