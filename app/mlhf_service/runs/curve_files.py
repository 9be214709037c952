"""Curves as files, written piece by piece: CSV in long format, and JSON."""

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from mlhf.core.metrics import json_number
from mlhf_service.runs import csv_text
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import METHOD
from mlhf_service.runs.metrics import Axis

COLUMNS = ("run_id", "metric", "step", "samples", "epoch", "wall_seconds", "cpu_seconds", "value")

CSV = "text/csv; charset=utf-8"
PNG = "image/png"

_SLICE = 16_384  # points a piece


def csv_pieces(series: Iterable[Series]) -> Iterator[bytes]:
    """CSV; values that are not finite are written NaN, Infinity, -Infinity.

    Args:
        series: Curves, or their pieces, in order.
    """
    yield csv_text.table(COLUMNS, ())
    for one in _sliced(series):
        head = csv_text.line((one.run_id, one.metric))
        places = zip(
            one.step.tolist(),
            one.samples.tolist(),
            one.epoch.tolist(),
            one.wall_seconds.tolist(),
            ["" if np.isnan(seconds) else repr(seconds) for seconds in one.cpu_seconds.tolist()],
            map(json_number, one.value.tolist()),
            strict=True,
        )
        rows = [f"{head},{a},{b},{c!r},{d!r},{e},{value}\r\n" for a, b, c, d, e, value in places]
        yield "".join(rows).encode()


def json_pieces(run_id: str, x: Axis, curves: Mapping[str, Iterable[Series]]) -> Iterator[bytes]:
    """The document ``schemas.Curves`` of curves by metric, each in one or more pieces."""
    yield f'{{"run_id":{json.dumps(run_id)},"x":{json.dumps(x)},"series":['.encode()
    for number, (metric, pieces) in enumerate(curves.items()):
        yield f'{"," if number else ""}{{"metric":{json.dumps(metric)},"points":['.encode()
        given = total = unplaced = 0
        for one in pieces:
            total += one.total
            unplaced += one.unplaced
            for part in _sliced([one]):
                points = json.dumps(part.pairs(x), allow_nan=False, separators=(",", ":"))
                yield f"{',' if given else ''}{points[1:-1]}".encode()
                given += len(part)
        fewer = given < total
        end: dict[str, Any] = {"total_points": total, "downsampled": fewer, "unplaced": unplaced}
        text = json.dumps(end | {"method": METHOD if fewer else None}, separators=(",", ":"))
        yield f"],{text[1:]}".encode()
    yield b"]}"


def _sliced(series: Iterable[Series]) -> Iterator[Series]:
    for one in series:
        for start in range(0, len(one), _SLICE):
            yield one.rows_between(start, start + _SLICE)
