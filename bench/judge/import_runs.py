"""Finished runs made from a report's table of curves, so that peers need not run again."""

import csv
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.harness.contract import Context
from bench.harness.runs import claim, read_result
from bench.judge import settings
from bench.judge.contenders import (
    ADAMW_DEFAULTS,
    CONTENDERS,
    Contender,
    Params,
)
from bench.judge.export import COLUMNS
from bench.judge.runs import Run
from bench.judge.stages import LONG
from bench.judge.tasks import BenchmarkTask
from mlhf.core import atomic_files
from mlhf.core.errors import DataError
from mlhf.core.events import encode

_Key = tuple[str, str, float, int]  # task, optimizer, horizon, seed
_CONTENDERS = {each.name: each for each in (*CONTENDERS, ADAMW_DEFAULTS)}


def import_runs(context: Context, table: Path, known: Sequence[BenchmarkTask]) -> list[Run]:
    """Make a folder for each run of the table whose setting is pinned here; return the new ones.

    Runs of the candidates are left out: they depend on the code and the meta-checkpoint, which
    the table does not name.

    Args:
        table: ``curves.csv.gz``, as the stage ``report`` writes it.
        known: The tasks that may be imported.

    Raises:
        DataError: If it is not such a table.
    """
    by_name = {task.name: task for task in known}
    made = []
    for (task, name, horizon, seed), points in _curves(table):
        each = _CONTENDERS.get(name)
        if each is None or each.category == "candidate" or task not in by_name:
            continue
        setting = _setting(context, task, each, horizon)
        if setting is None or not _wanted(context, name):
            continue
        found = by_name[task] if horizon == 1 else by_name[task].longer(horizon)
        run = Run(found, each, setting, seed)
        if read_result(run.folder(context)) is None:
            write_run(context, run, points)
            made.append(run)
    return made


def _curves(table: Path) -> Iterator[tuple[_Key, list[dict[str, float]]]]:
    try:
        with gzip.open(table, "rt", encoding="utf-8", newline="") as file:
            reader = csv.DictReader(file)
            if tuple(reader.fieldnames or ()) != COLUMNS:
                raise DataError(f"{table} has other columns than {', '.join(COLUMNS)}.")
            for key, rows in groupby(reader, _key):
                yield key, [{c: float(row[c] or "nan") for c in COLUMNS[4:]} for row in rows]
    except (OSError, EOFError, ValueError) as error:
        raise DataError(f"{table} is not a table of curves: {error}") from error


def _key(row: Mapping[str, str]) -> _Key:
    return row["task"], row["optimizer"], float(row["horizon"]), int(row["seed"])


def _wanted(context: Context, name: str) -> bool:
    return not context.only or name in context.only


def _setting(context: Context, task: str, each: Contender, horizon: float) -> Params | None:
    """Return the setting of a run: the pinned one, None where none is pinned."""
    if not each.grid:
        return {}
    found = settings.pinned(context.output, task, each.name)
    if found is None:
        return None
    if horizon in (1, LONG):
        whole: Params = found["setting"]
        return whole
    choices = (found.get("horizons") or {}).values()
    return next((c["setting"] for c in choices if c["factor"] == horizon), None)


def write_run(context: Context, run: Run, points: Sequence[Mapping[str, float]]) -> None:
    """Make the folder of a finished run from its evaluations, in the columns of the table."""
    folder = run.folder(context)
    claim(folder, run.document(context))
    curve = curve_points(run.task, points)
    atomic_files.write(folder / "curve.jsonl", b"".join(map(encode, curve)))
    whole = points[-1]["epoch"] >= run.task.epochs and math.isfinite(points[-1]["train_loss"])
    result = {
        "status": "succeeded" if whole else "diverged",
        "reason": "from a table of curves",
        "totals": {"steps": curve[-1]["step"], **_position(points[-1])},
        "summary": {},
        "environment": {},
    }
    atomic_files.write(folder / "result.json", encode(result))


def curve_points(
    task: BenchmarkTask, points: Sequence[Mapping[str, float]]
) -> list[dict[str, Any]]:
    """Return evaluations as a run's curve has them: with steps, and losses among the values."""
    batch = task.spec.batch_size
    first = next((p for p in points if p["epoch"]), points[-1])
    steps_per_epoch = math.ceil(first["samples"] / first["epoch"] / batch) if first["epoch"] else 0
    return [
        {
            "step": round(point["epoch"] * steps_per_epoch),
            **_position(point),
            "values": {name: point[name] for name in COLUMNS[7:]},
        }
        for point in points
    ]


def _position(point: Mapping[str, float]) -> dict[str, Any]:
    return {name: point[name] for name in COLUMNS[4:7]}
