"""All curves of a report in one table, so that it can be checked without its runs."""

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.judge.results import Curves, TaskResults
from bench.judge.stages import LONG

COLUMNS = (
    *("task", "optimizer", "horizon", "seed", "epoch", "samples", "wall_seconds"),
    *("train_loss", "test_loss", "test_accuracy"),
)
_DIGITS = 6


def export(path: Path, results: Sequence[TaskResults]) -> Path:
    """Write one row for each evaluation of each run, as gzipped CSV; return the path.

    ``horizon`` is a multiple of the task's own; seconds are those of the run itself.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for found in results:
        for horizon, curves in ((1.0, found.curves), (LONG, found.long)):
            for name, by_seed in curves.items():
                writer.writerows(_rows(found.task.name, name, horizon, by_seed))
        for name, choices in found.chosen.items():
            seen: list[tuple[float, Curves]] = []
            for horizon, by_seed in choices.values():
                if (horizon, by_seed) not in seen:  # two targets may have chosen alike
                    writer.writerows(_rows(found.task.name, name, horizon, by_seed))
                seen.append((horizon, by_seed))
    # Without a time in the file, the same runs give the same bytes.
    path.write_bytes(gzip.compress(text.getvalue().encode(), mtime=0))
    return path


def _rows(task: str, name: str, horizon: float, curves: Curves) -> Iterator[list[Any]]:
    for seed, curve in sorted(curves.items()):
        for point in curve.points:
            values = point["values"]
            numbers = [point[key] for key in ("epoch", "samples", "wall_seconds")]
            numbers += [values.get(key) for key in COLUMNS[-3:]]
            yield [task, name, f"{horizon:g}", seed, *map(_format, numbers)]


def _format(value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS}g}" if value else "0"
