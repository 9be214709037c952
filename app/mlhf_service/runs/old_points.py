"""Move curves from before chunks, a row a point in the table ``points``, into chunks.

For the migration that drops that table. Memory is bounded however many points there are.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import sqlalchemy as sa

from mlhf_service.runs import chunks
from mlhf_service.runs.blocks import Block, joined

_POINTS_AT_ONCE = 200_000  # in memory: some 100 MB
_PLACES = ("step", "samples", "epoch", "wall_seconds", "cpu_seconds")
_POINTS = sa.table(
    "points", *(sa.column(name) for name in ("run_id", "metric", *_PLACES, "value", "nonfinite"))
)
_OLD = _POINTS.c
_READ = [_OLD[name] for name in (*_PLACES, "value", "nonfinite")]
_RUNS = sa.table("runs", sa.column("id"), sa.column("attempt"))
# As the migration makes it: a later one may change the table of the code.
_CHUNKS = sa.table(
    "curve_chunks",
    *(sa.column(name) for name in ("run_id", "first_step", "last_step", "attempt", "rows")),
    sa.column("digest"),
    sa.column("extents", sa.JSON),
    *(sa.column(name, sa.LargeBinary) for name in ("summary", "data")),
)


def move_points(connection: sa.Connection) -> None:
    """Write every point of the table ``points`` into ``curve_chunks``."""
    runs = connection.execute(sa.select(_RUNS))
    attempts: dict[str, int] = {row.id: row.attempt for row in runs}
    counts = connection.execute(
        sa.select(_OLD.run_id, sa.func.count()).group_by(_OLD.run_id).order_by(_OLD.run_id)
    ).all()
    for run_ids in _batches(counts):
        if len(run_ids) == 1:
            moved: Iterable[tuple[str, Block]] = (
                (run_ids[0], block) for block in _windows(connection, run_ids[0])
            )
        else:
            moved = _whole(connection, run_ids)
        for run_id, block in moved:
            rows = [
                chunks.row(run_id, attempts[run_id], piece) for piece in block.pieces(chunks.ROWS)
            ]
            connection.execute(sa.insert(_CHUNKS), rows)


def _batches(counts: Sequence[Any]) -> Iterator[list[str]]:
    """Runs in order whose points fit into memory together; a long one by itself."""
    batch: list[str] = []
    points = 0
    for run_id, count in counts:
        if batch and points + count > _POINTS_AT_ONCE:
            yield batch
            batch, points = [], 0
        batch.append(run_id)
        points += count
    if batch:
        yield batch


def _whole(connection: sa.Connection, run_ids: Sequence[str]) -> Iterator[tuple[str, Block]]:
    statement = (
        sa.select(_OLD.run_id, _OLD.metric, *_READ)
        .where(_OLD.run_id.between(run_ids[0], run_ids[-1]))
        .order_by(_OLD.run_id, _OLD.metric, _OLD.step)
    )
    rows = connection.execute(statement)
    for run_id, of_run in groupby(rows, key=lambda found: found[0]):
        columns: dict[str, Sequence[Any]] = {
            metric: [tuple(point[2:]) for point in of_metric]
            for metric, of_metric in groupby(of_run, key=lambda found: found[1])
        }
        yield run_id, _block(columns)


def _windows(connection: sa.Connection, run_id: str) -> Iterator[Block]:
    """The rows of one run, in blocks of at least ROWS rows but for the last."""
    of_run = _OLD.run_id == run_id
    metrics = list(connection.scalars(sa.select(_OLD.metric).where(of_run).distinct()))
    size = max(512, _POINTS_AT_ONCE // (2 * len(metrics)))
    after, gathered, rows = -(2**63), list[Block](), 0
    while True:
        left = [of_run & (_OLD.metric == metric) & (_OLD.step > after) for metric in metrics]
        last = [
            connection.scalar(
                sa.select(_OLD.step).where(which).order_by(_OLD.step).limit(1).offset(size - 1)
            )
            for which in left
        ]
        end = min((step for step in last if step is not None), default=None)
        columns: dict[str, Sequence[Any]] = {}
        for metric, which in zip(metrics, left, strict=True):
            until = which if end is None else which & (_OLD.step <= end)
            found = connection.execute(sa.select(*_READ).where(until).order_by(_OLD.step)).all()
            if found:
                columns[metric] = found
        if columns:
            gathered.append(_block(columns))
            rows += len(gathered[-1])
        if gathered and (rows >= chunks.ROWS or end is None):
            yield joined(gathered)
            gathered, rows = [], 0
        if end is None:
            return
        after = end


def _block(columns: dict[str, Sequence[Any]]) -> Block:
    """Points of metrics as rows: those of one step with the same places become one row."""
    metrics = list(columns)
    places = np.concatenate([_places(columns[metric]) for metric in metrics])
    distinct, row_of = np.unique(places, return_inverse=True)
    values, present, start = {}, {}, 0
    for metric in metrics:
        points = columns[metric]
        rows = row_of[start : start + len(points)]
        start += len(points)
        values[metric] = np.full(len(distinct), np.nan)
        values[metric][rows] = [_number(point[5], point[6]) for point in points]
        present[metric] = np.zeros(len(distinct), dtype=bool)
        present[metric][rows] = True
    return Block(
        step=distinct["step"],
        samples=distinct["samples"],
        epoch=distinct["epoch"],
        wall_seconds=distinct["wall"],
        cpu_seconds=np.where(distinct["cpu"] < 0, np.nan, distinct["cpu"]),
        values=values,
        present=present,
    )


def _places(points: Sequence[Any]) -> np.ndarray[Any, Any]:
    kinds = [("step", "i8"), ("samples", "i8"), ("epoch", "f8"), ("wall", "f8"), ("cpu", "f8")]
    # Seconds are never negative: those not counted are marked so that they equal each other.
    rows = [(*point[:4], -1.0 if point[4] is None else point[4]) for point in points]
    return np.array(rows, dtype=kinds)


def _number(value: float | None, nonfinite: str | None) -> float:
    # SQLite stores NaN as NULL: what is not finite was kept by name.
    if nonfinite is not None:
        return float(nonfinite)
    return float("nan") if value is None else value
