"""Points from files of other tools."""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mlhf.core.metrics import json_number
from mlhf_service.imports.formats import ImportFormat
from mlhf_service.imports.names import metric_of, place_of, plain
from mlhf_service.kit import event_files

MOST_POINTS = 1_000_000
MOST_COLUMNS = 200
_IGNORED = {"", "_timestamp", "_wandb", "name", "run_id", "time", "date", "index"}


class ImportFailedError(Exception):
    """What is wrong with a file, by line and column."""


@dataclass
class Imported:
    """What was understood of the files.

    Attributes:
        points: In ascending steps, as the service writes them.
        metrics: By column or tag, the metric it became.
        ignored: Columns that hold nothing that could be used, and why.
    """

    points: list[dict[str, Any]] = field(default_factory=list)
    metrics: dict[str, str] = field(default_factory=dict)
    ignored: dict[str, str] = field(default_factory=dict)


def read(
    format: ImportFormat,
    files: Sequence[tuple[str, bytes]],
    rename: Mapping[str, str],
    batch_size: int | None,
) -> Imported:
    """Read files that together are one run. Raises ImportFailedError.

    Args:
        files: Each with its name.
        rename: By column or tag: the axis or the metric that it is.
        batch_size: Where samples are not told, they are steps times this.
    """
    if format != "tensorboard" and len(files) > 1:
        raise ImportFailedError("one file is one run: import several one by one")
    if format == "tensorboard":
        imported = _tensorboard(files, rename)
    else:
        name, content = files[0]
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ImportFailedError(f"{name} is no UTF-8 text, at byte {error.start}") from None
        is_lines = format == "wandb" and text.lstrip().startswith("{")
        rows = _json_lines(text) if is_lines else _csv_rows(text)
        imported = _table(rows, rename)
    if not imported.points:
        raise ImportFailedError("the files hold no measured numbers")
    imported.points.sort(key=lambda point: point["step"])
    for point in imported.points:
        if point["samples"] is None:
            point["samples"] = point["step"] * (batch_size or 1)
    return imported


def _csv_rows(text: str) -> Iterable[tuple[int, dict[str, Any]]]:
    csv.field_size_limit(2**20)
    delimiter = "\t" if "\t" in text.partition("\n")[0] else ","
    reader = csv.DictReader(io.StringIO(text), delimiter=delimiter)
    try:
        names = reader.fieldnames or []
        if len(names) > MOST_COLUMNS:
            raise ImportFailedError(f"{len(names)} columns; at most {MOST_COLUMNS} are read")
        repeated = sorted({name for name in names if names.count(name) > 1})
        if repeated:
            raise ImportFailedError(f"the column {repeated[0]!r} comes twice in the first line")
        for row in reader:
            if None in row:
                raise ImportFailedError(
                    f"line {reader.line_num} has more cells than the first line"
                )
            yield reader.line_num, row
    except csv.Error as error:
        raise ImportFailedError(f"line {reader.line_num}: {error}") from None


def _json_lines(text: str) -> Iterable[tuple[int, dict[str, Any]]]:
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise ImportFailedError(f"line {number} is no JSON: {error}") from None
        if not isinstance(row, dict):
            raise ImportFailedError(f"line {number} is no JSON object")
        yield number, row


def _table(rows: Iterable[tuple[int, dict[str, Any]]], rename: Mapping[str, str]) -> Imported:
    found = Imported()
    last: dict[str, Any] = {"step": -1, "samples": None, "epoch": 0.0, "wall_seconds": 0.0}
    for line, row in rows:
        place = {**last, "step": last["step"] + 1, "cpu_seconds": None, "samples": None}
        values: dict[str, Any] = {}
        for column, cell in row.items():
            if column in found.ignored:
                continue
            axis, metric = _meaning(column, rename)
            if axis is None and metric is None:
                found.ignored[column] = "not a metric"
                continue
            number = _number(cell)
            if number is None:
                if cell not in (None, "") and metric and metric not in found.metrics.values():
                    found.ignored[column] = f"line {line} holds no number: {str(cell)[:40]!r}"
                elif cell not in (None, ""):
                    raise ImportFailedError(
                        f"line {line}, {column}: {str(cell)[:40]!r} is no number"
                    )
                continue
            if axis is not None:
                place[axis] = _placed(axis, number, line, column)
            elif metric is not None:
                _name(found, column, metric)
                values[metric] = json_number(number)
        if values:
            found.points.append({**place, "values": values})
            last = {**place}
        if len(found.points) > MOST_POINTS:
            raise ImportFailedError(f"more than {MOST_POINTS:,} rows")
    return found


def _meaning(column: str, rename: Mapping[str, str]) -> tuple[str | None, str | None]:
    """The axis or the metric that a column is; neither for one that is left out."""
    name = rename.get(column, column)
    if plain(name) in _IGNORED or name.lower() in _IGNORED:
        return None, None
    axis = place_of(name)
    return (axis, None) if axis else (None, name if column in rename else metric_of(name))


def _name(found: Imported, column: str, metric: str) -> None:
    for other, same in found.metrics.items():
        if same == metric and other != column:
            raise ImportFailedError(
                f"{other!r} and {column!r} would both be {metric}: rename one of them"
            )
    found.metrics[column] = metric


def _placed(axis: str, number: float, line: int, column: str) -> float | int:
    if not math.isfinite(number) or number < 0:
        raise ImportFailedError(f"line {line}, {column}: {number} is no place on an axis")
    return int(number) if axis in ("step", "samples") else number


def _number(cell: Any) -> float | None:
    if isinstance(cell, bool) or cell is None:
        return None
    try:
        return float(cell)
    except (TypeError, ValueError, OverflowError):
        return None


def _tensorboard(files: Sequence[tuple[str, bytes]], rename: Mapping[str, str]) -> Imported:
    found = Imported()
    scalars: list[event_files.Scalar] = []
    for name, content in files:
        try:
            scalars += event_files.read(content)
        except event_files.EventFileError as error:
            raise ImportFailedError(f"{name}: {error}") from None
    if len(scalars) > MOST_POINTS:
        raise ImportFailedError(f"more than {MOST_POINTS:,} values")
    start = min((one.wall_time for one in scalars), default=0.0)
    points: dict[int, dict[str, Any]] = {}
    for one in sorted(scalars, key=lambda scalar: scalar.wall_time):
        axis, metric = _meaning(one.tag, rename)
        if metric is None and axis is None:
            found.ignored[one.tag] = "not a metric"
            continue
        point = points.setdefault(
            max(0, one.step),
            {
                "step": max(0, one.step),
                "samples": None,
                "epoch": 0.0,
                "wall_seconds": one.wall_time - start,
                "cpu_seconds": None,
                "values": {},
            },
        )
        if axis is not None:
            if axis != "step":
                point[axis] = _placed(axis, one.value, one.step, one.tag)
        elif metric is not None:
            _name(found, one.tag, metric)
            point["values"][metric] = json_number(one.value)
    found.points = [point for point in points.values() if point["values"]]
    return found
