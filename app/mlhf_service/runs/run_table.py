"""Runs as a table for a spreadsheet: one line a run, one column a field."""

from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from mlhf_service.database import Database
from mlhf_service.runs import csv_text, fields, projects, repository, search, values
from mlhf_service.runs.models import Run
from mlhf_service.runs.values import RunValue

_AT_ONCE = 500
# Columns that every table has, unless it was told which to have.
_FIRST = (
    *("id", "job_id", "name", "status", "project", "model", "dataset", "optimizer"),
    *("created_at", "started_at", "finished_at"),
)


def csv_pieces(
    database: Database,
    session: Session,
    statement: Select[Any],
    sort: str,
    cursor: str | None,
    columns: Sequence[str] | None,
) -> Iterator[str]:
    """A CSV file in pieces. What is wrong with ``sort`` or ``columns`` is raised at once."""
    first = search.page(session, statement, sort, _AT_ONCE, cursor)
    if columns is None:
        few = first[1] is None
        names = [*_FIRST, *(_keys_of(session, first[0]) if few else fields.keys(session))]
    else:
        wanted = [name.strip() for one in columns for name in one.split(",") if name.strip()]
        names = [fields.find(session, name, "columns") for name in wanted]
    return _lines(database, statement, sort, first, names)


def _keys_of(session: Session, run_ids: Sequence[str]) -> list[str]:
    """The names of the values that some runs have."""
    found = select(RunValue.key).where(RunValue.run_id.in_(run_ids)).distinct()
    return sorted(session.scalars(found))


def _lines(
    database: Database,
    statement: Select[Any],
    sort: str,
    first: tuple[list[str], str | None],
    names: Sequence[str],
) -> Iterator[str]:
    yield csv_text.line(names) + "\r\n"
    ids, cursor = first
    while ids:
        with database.read() as session:
            runs = repository.get_many(session, ids)
            named = projects.names(session, (run.project_id for run in runs))
            lines = [csv_text.line(_cells(run, names, named)) + "\r\n" for run in runs]
            following = (
                search.page(session, statement, sort, _AT_ONCE, cursor) if cursor else ([], None)
            )
        yield "".join(lines)
        ids, cursor = following


def _cells(run: Run, names: Sequence[str], named: dict[str, str]) -> list[object]:
    known = values.of_run(run)
    return [cell(run, name, known, named) for name in names]


def cell(run: Run, name: str, known: dict[str, Any], named: dict[str, str]) -> object:
    """What a run has of a field.

    Args:
        known: Its values (``values.of_run``).
        named: Names of projects by id.
    """
    if name == "project":
        return named.get(run.project_id or "", projects.DEFAULT)
    if name == "dataset":
        return run.dataset_name or run.dataset
    if name in fields.ATTRIBUTES:
        value = getattr(run, fields.ATTRIBUTES[name].key)
        return value.isoformat() if name in fields.TIMES and value is not None else value
    value = known.get(name)
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
