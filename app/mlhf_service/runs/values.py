"""What runs are searched and sorted by: hyperparameters, metrics, tags, each a row of a table.

A value is found by a name of the query language (``runs.query``): ``optimizer.lr``,
``train_loss``, ``train_loss.best``, ``seconds``, ``tags.team``. The rows are derived from the
run's own columns and follow them at each flush, whoever changes a run.
"""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

from sqlalchemy import (
    ARRAY,
    Float,
    ForeignKey,
    Index,
    String,
    bindparam,
    column,
    delete,
    event,
    func,
    inspect,
    select,
)
from sqlalchemy import text as sql_text
from sqlalchemy.dialects import postgresql
from sqlalchemy.orm import Mapped, Session, UOWTransaction, mapped_column

from mlhf.core.metrics import parse_number
from mlhf_service.database import Base
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import TERMINAL
from mlhf_service.tenancy import OfTenant

Flat = dict[str, Any]

TAGS = "tags."
BEST = ".best"
# Where a run is, by the names of its totals and of its progress.
TOTALS = {
    "seconds": ("wall_seconds", "wall_seconds"),
    "cpu_seconds": ("cpu_seconds", "cpu_seconds"),
    "steps": ("steps", "step"),
    "samples": ("samples", "samples"),
    "epochs": ("epochs", "epoch"),
}
_COMPONENTS = ("model", "dataset", "optimizer")
_LONGEST, _DEEPEST = 200, 6
# These change at each step, and are written down when the run has ended.
_EVALUATIONS = ("train_loss", "test_loss", "train_accuracy", "test_accuracy", "meta_loss")


class RunValue(OfTenant, Base):
    """One value of one run, as a number, as text, or both."""

    __tablename__ = "run_values"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    number: Mapped[float | None] = mapped_column(Float(53))
    text: Mapped[str | None] = mapped_column(String(_LONGEST))

    __table_args__ = (
        Index("ix_run_values_number", "tenant", "key", "number", "run_id"),
        Index(
            "ix_run_values_text",
            "tenant",
            "key",
            "text",
            "run_id",
            sqlite_where=sql_text("text IS NOT NULL"),
            postgresql_where=sql_text("text IS NOT NULL"),
        ),
        {"sqlite_with_rowid": False},
    )


def parameters(config: Mapping[str, Any]) -> Flat:
    """A run's configuration, flat: ``optimizer.lr``, ``model.hidden``, ``batch_size``."""
    found: Flat = {}
    for name, value in config.items():
        if name in _COMPONENTS and isinstance(value, Mapping):
            found.update(_flatten(f"{name}.", value.get("params") or {}))
        else:
            found.update(_flatten("", {name: value}))
    return found


def _flatten(prefix: str, values: Mapping[str, Any], depth: int = 0) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        key = f"{prefix}{name}"
        if isinstance(value, Mapping) and depth < _DEEPEST:
            yield from _flatten(f"{key}.", value, depth + 1)
        elif value is not None and len(key) <= _LONGEST:
            yield key, value


def results(
    summary: Mapping[str, Any] | None,
    totals: Mapping[str, Any] | None,
    progress: Mapping[str, Any] | None,
    *,
    ended: bool = True,
) -> Flat:
    """What was measured of a run: the last and best value of each metric, seconds, steps.

    Args:
        ended: Also what changes at every step.
    """
    found: Flat = {}
    for metric, each in (summary or {}).items():
        if ended or metric in _EVALUATIONS:
            found[metric] = _number(each.get("last"))
            found[metric + BEST] = _number(each.get("best"))
    for name, (of_totals, of_progress) in TOTALS.items():
        value = (totals or {}).get(of_totals, (progress or {}).get(of_progress))
        found[name] = value
    return {name: value for name, value in found.items() if value is not None}


def _number(value: Any) -> float | None:
    return parse_number(value) if isinstance(value, int | float | str) else None


def of_run(run: Run) -> Flat:
    """All values of a run."""
    measured = results(run.summary, run.totals, run.progress, ended=run.status in TERMINAL)
    tags = {f"{TAGS}{key}": value for key, value in (run.tags or {}).items()}
    return {**parameters(run.config), **measured, **tags}


def row(tenant: str, run_id: str, key: str, value: Any) -> dict[str, Any]:
    """A value as a row: numbers as such, what is not finite, true or a list as text."""
    number: float | None = None
    shown: str | None = None
    if isinstance(value, bool):
        number, shown = float(value), str(value).lower()
    elif isinstance(value, int | float):
        number = float(value) if math.isfinite(value) else None
        shown = None if number is not None else str(float(value))
    elif isinstance(value, str):
        shown = value
        if key.startswith(TAGS):
            number = _number_of_text(value)
    else:
        shown = json.dumps(value)
    shown = None if shown is None else shown[:_LONGEST]
    return {"tenant": tenant, "run_id": run_id, "key": key, "number": number, "text": shown}


def _number_of_text(value: str) -> float | None:
    try:
        number = float(value)
    except ValueError:
        return None
    return number if math.isfinite(number) else None


def rows(run: Run, flat: Flat) -> list[dict[str, Any]]:
    """Some values of a run as rows."""
    return [row(run.tenant, run.id, key, value) for key, value in flat.items()]


def write(session: Session, found: Sequence[dict[str, Any]]) -> None:
    """Write rows, in place of those of the same run and name."""
    if not found:
        return
    # Past the unit of work, which is being flushed.
    connection = session.connection()
    last = [*{(one["run_id"], one["key"]): one for one in found}.values()]  # a row at most once
    if connection.dialect.name != "postgresql":
        for first in range(0, len(last), _ROWS_AT_ONCE):
            some = last[first : first + _ROWS_AT_ONCE]
            each = tuple(one[name] for one in some for name in _COLUMNS)
            connection.exec_driver_sql(_writing(len(some)), each)
        return
    columns = {f"all_{name}": [one[name] for one in last] for name in _COLUMNS}
    connection.execute(_WRITE_ALL, columns)


_COLUMNS: dict[str, Any] = {
    "run_id": String(),
    "key": String(),
    "number": Float(53),
    "text": String(),
    "tenant": String(),
}
_ROWS_AT_ONCE = 1000  # SQLite takes 32,766 parameters


@cache
def _writing(rows: int) -> str:
    """One statement for so many rows: each that SQLite is given lets another thread go first.

    Of names of our own and question marks.
    """
    row = f"({', '.join('?' * len(_COLUMNS))})"
    where = f"INTO {RunValue.__tablename__} ({', '.join(_COLUMNS)})"
    excluded = "number = excluded.number, text = excluded.text"
    rest = f"ON CONFLICT (run_id, key) DO UPDATE SET {excluded}"
    return " ".join(("INSERT", where, "VALUES", ", ".join([row] * rows), rest))


# Columns as arrays: one statement is sent and answered, not one for each row.
_ALL = (
    func.unnest(*(bindparam(f"all_{name}", type_=ARRAY(kind)) for name, kind in _COLUMNS.items()))
    .table_valued(*(column(name, kind) for name, kind in _COLUMNS.items()))
    .render_derived()
)
_INSERT = postgresql.insert(RunValue).from_select([*_COLUMNS], select(*_ALL.c))
_WRITE_ALL = _INSERT.on_conflict_do_update(
    index_elements=["run_id", "key"],
    set_={"number": _INSERT.excluded.number, "text": _INSERT.excluded.text},
)


@event.listens_for(Session, "after_flush")
def _follow(session: Session, _: UOWTransaction) -> None:
    """Keep the values what the runs that are written say."""
    made = [
        row for each in session.new if isinstance(each, Run) for row in rows(each, of_run(each))
    ]
    for each in session.dirty:
        if isinstance(each, Run):
            made += _changes(session, each)
    write(session, made)


def _changes(session: Session, run: Run) -> Iterable[dict[str, Any]]:
    """The rows that a change of a run changes; those of dropped tags are deleted."""
    history = {name: inspect(run).attrs[name].history for name in _WATCHED}
    if not any(each.has_changes() for each in history.values()):
        return ()
    ended = run.status in TERMINAL
    before = results(*(_before(history[name]) for name in _MEASURED), ended=ended)
    after = results(run.summary, run.totals, run.progress, ended=ended)
    whole = ended and history["status"].has_changes()
    changed = {k: v for k, v in after.items() if whole or before.get(k) != v}
    if not ended and not any(name in changed for name in _EVALUATIONS):
        changed = {}  # between evaluations only the place changes
    if history["tags"].has_changes():
        old, new = _before(history["tags"]) or {}, run.tags or {}
        changed |= {f"{TAGS}{key}": value for key, value in new.items()}
        if dropped := [f"{TAGS}{key}" for key in old if key not in new]:
            gone = delete(RunValue).where(RunValue.run_id == run.id, RunValue.key.in_(dropped))
            session.connection().execute(gone)
    return rows(run, changed)


_MEASURED = ("summary", "totals", "progress")
_WATCHED = (*_MEASURED, "status", "tags")


def _before(history: Any) -> Any:
    """What an attribute held before, where that is known; else what it holds."""
    kept = history.deleted or history.unchanged
    return kept[0] if kept else None
