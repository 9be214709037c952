"""Insert new rows without the unit of work, which costs more than the database does."""

from collections.abc import Iterable
from functools import cache
from itertools import groupby
from typing import Any

from sqlalchemy import ColumnElement, Insert, insert, inspect
from sqlalchemy.orm import DeclarativeBase, Session

from mlhf_service.tenancy import make_own


def insert_new(session: Session, rows: Iterable[DeclarativeBase]) -> None:
    """Insert rows in their order; neighbours that have the same columns set, at once.

    The objects stay outside of the session: what is changed on them later is not written, defaults
    are the table's and are not put on them, and what is derived at a flush is not.
    """
    given = []
    for row in rows:
        make_own(session, row)
        given.append((type(row), _given(row)))
    statements: list[tuple[Insert, Any]] = []
    for (kind, _), group in groupby(given, lambda one: (one[0], one[1].keys())):
        literal = []
        for _, values in group:
            if computed := {k: v for k, v in values.items() if isinstance(v, ColumnElement)}:
                rest = {k: v for k, v in values.items() if k not in computed}
                statements.append((_into(kind).values(computed), rest))
            else:
                literal.append(values)
        if literal:
            statements.append((_into(kind), literal))
    connection = session.connection()  # on SQLite nobody else writes from here on
    for statement, parameters in statements:
        connection.execute(statement, parameters)


@cache
def _into(kind: type[DeclarativeBase]) -> Insert:
    """Made once: making a statement takes as long as sending it."""
    return insert(kind)


def _given(row: DeclarativeBase) -> dict[str, Any]:
    """What was set on an object, by column."""
    state = inspect(row)
    return {
        column.key: state.dict[name]
        for name, column in state.mapper.columns.items()
        if name in state.dict
    }
