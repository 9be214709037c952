"""The rows by which runs are found are written many at once, each in place of an older one."""

from typing import Any

from sqlalchemy import select

from mlhf_service.database import Database
from mlhf_service.runs import values
from mlhf_service.runs.models import Run
from mlhf_service.runs.values import RunValue


def stored(database: Database, run_id: str) -> dict[str, tuple[float | None, str | None]]:
    with database.read() as session:
        found = session.scalars(select(RunValue).where(RunValue.run_id == run_id))
        return {one.key: (one.number, one.text) for one in found if one.key.startswith("own.")}


def test_values_of_every_kind_replace_those_of_the_same_name(database: Database, rows: Any) -> None:
    run_id = rows.run()
    with database.read() as session:
        run = session.get(Run, run_id)
    assert run is not None
    first = {"own.count": 1, "own.rate": float("nan"), "own.text": "a 'b' {c} \\ ä", "own.on": True}
    with database.write() as session:
        values.write(session, values.rows(run, first))
    assert stored(database, run.id) == {
        "own.count": (1.0, None),
        "own.rate": (None, "nan"),
        "own.text": (None, "a 'b' {c} \\ ä"),
        "own.on": (1.0, "true"),
    }
    # The same name twice at once: the last one holds.
    twice = values.rows(run, {"own.count": 2}) + values.rows(run, {"own.count": 3, "own.text": ""})
    with database.write() as session:
        values.write(session, twice)
    assert stored(database, run.id)["own.count"] == (3.0, None)
    assert stored(database, run.id)["own.text"] == (None, "")


def test_no_values_are_no_statement(database: Database) -> None:
    with database.write() as session:
        values.write(session, [])


def test_more_values_than_one_statement_takes_are_all_written(
    database: Database, rows: Any
) -> None:
    run_id = rows.run()
    with database.read() as session:
        run = session.get(Run, run_id)
    assert run is not None
    with database.write() as session:
        values.write(session, values.rows(run, {f"own.{n}": n for n in range(2500)}))
    assert stored(database, run_id) == {f"own.{n}": (float(n), None) for n in range(2500)}
