"""Runs from a report's table of curves, so that what was run need not be run again."""

import csv
import gzip
import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

from bench.harness.contract import Context
from bench.harness.runs import claim, result_of
from bench.judge import settings
from bench.judge.export import COLUMNS
from bench.judge.grids import (
    ADAMW_DEFAULTS,
    ENTRANTS,
    Entrant,
    Params,
)
from bench.judge.runs import Run
from bench.judge.stages import LONG
from bench.judge.tasks import Judged
from mlhf.core import atomic_files
from mlhf.core.errors import DataError
from mlhf.core.events import encode

_Key = tuple[str, str, float, int]  # task, optimizer, horizon, seed
_ENTRANTS = {each.name: each for each in (*ENTRANTS, ADAMW_DEFAULTS)}


def take_up(context: Context, table: Path, every: Sequence[Judged]) -> list[Run]:
    """Make a folder for each run of the table whose setting is pinned here; return the new ones.

    Runs of the candidate and its control are left out: what they were depends on the code and
    the meta-checkpoint, of which the table says nothing.

    Args:
        table: ``curves.csv.gz``, as the stage ``report`` writes it.

    Raises:
        DataError: where it is not such a table.
    """
    judged = {j.name: j for j in every}
    made = []
    for (task, name, horizon, seed), points in _curves(table):
        each = _ENTRANTS.get(name)
        if each is None or each.rank == "candidate" or task not in judged:
            continue
        setting = _setting(context, task, each, horizon)
        if setting is None or not _chosen(context, name):
            continue
        of = judged[task] if horizon == 1 else judged[task].longer(horizon)
        run = Run(of, each, setting, seed)
        if result_of(run.folder(context)) is None:
            _write(context, run, points)
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
        raise DataError(f"{table} is no table of curves: {error}") from error


def _key(row: Mapping[str, str]) -> _Key:
    return row["task"], row["optimizer"], float(row["horizon"]), int(row["seed"])


def _chosen(context: Context, name: str) -> bool:
    return not context.only or name in context.only


def _setting(context: Context, task: str, each: Entrant, horizon: float) -> Params | None:
    """Return what the run was made with: it is pinned, and what is not pinned is not known."""
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


def _write(context: Context, run: Run, points: Sequence[Mapping[str, float]]) -> None:
    folder = run.folder(context)
    claim(folder, run.document(context))
    batch = run.judged.task.batch_size
    first = next((p for p in points if p["epoch"]), points[-1])
    an_epoch = math.ceil(first["samples"] / first["epoch"] / batch) if first["epoch"] else 0
    lines = []
    for point in points:
        step = round(point["epoch"] * an_epoch)
        values = {name: point[name] for name in COLUMNS[7:]}
        lines.append(encode({"step": step, **_placed(point), "values": values}))
    atomic_files.write(folder / "curve.jsonl", b"".join(lines))
    whole = points[-1]["epoch"] >= run.judged.epochs and math.isfinite(points[-1]["train_loss"])
    result = {
        "status": "succeeded" if whole else "diverged",
        "reason": "from a table of curves",
        "totals": {"steps": round(points[-1]["epoch"] * an_epoch), **_placed(points[-1])},
        "summary": {},
        "environment": {},
    }
    atomic_files.write(folder / "result.json", encode(result))


def _placed(point: Mapping[str, float]) -> dict[str, Any]:
    return {name: point[name] for name in COLUMNS[4:7]}
