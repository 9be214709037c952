"""Insert new rows without the unit of work, which costs more than the database does."""

from collections.abc import Iterable
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Insert, insert, inspect
from sqlalchemy.orm import DeclarativeBase, Session

from mlhf_service.tenancy import make_own


def insert_new(session: Session, rows: Iterable[DeclarativeBase]) -> None:
    """Insert rows in their order, those of one table that follow each other at once.

    The objects stay outside of the session: what is changed on them later is not written, defaults
    are the table's and are not put on them, and what is derived at a flush is not.
    """
    statements: list[tuple[Insert, Any]] = []
    for kind, group in groupby(rows, type):
        literal = []
        for row in group:
            make_own(session, row)
            given = _given(row)
            if computed := {k: v for k, v in given.items() if isinstance(v, ColumnElement)}:
                rest = {k: v for k, v in given.items() if k not in computed}
                statements.append((insert(kind).values(computed), rest))
            else:
                literal.append(given)
        if literal:
            statements.append((insert(kind), literal))
    connection = session.connection()  # on SQLite nobody else writes from here on
    for statement, values in statements:
        connection.execute(statement, values)


def _given(row: DeclarativeBase) -> dict[str, Any]:
    """What was set on an object, by column."""
    state = inspect(row)
    return {
        column.key: state.dict[name]
        for name, column in state.mapper.columns.items()
        if name in state.dict
    }
