"""Every judged curve in one table, so that a report can be checked without its runs."""

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

    ``horizon`` is in parts of the task's own; seconds are as the run took them.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for of in results:
        for horizon, curves in ((1.0, of.curves), (LONG, of.long)):
            for name, by_seed in curves.items():
                writer.writerows(_rows(of.judged.name, name, horizon, by_seed))
        for name, choices in of.chosen.items():
            seen: list[tuple[float, Curves]] = []
            for horizon, by_seed in choices.values():
                if (horizon, by_seed) not in seen:  # two targets may have chosen the same
                    writer.writerows(_rows(of.judged.name, name, horizon, by_seed))
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
            yield [task, name, f"{horizon:g}", seed, *map(_short, numbers)]


def _short(value: float | None) -> str:
    return "" if value is None else f"{value:.{_DIGITS}g}" if value else "0"
