"""Rows of any table as lines of JSON, the same from and for every database.

Tables are those that the database has, not those of the code: so a backup of an earlier version
is restored as it was, and then migrated. No program of the database's own is needed, whose
version would have to fit the server's.
"""

import base64
import json
import warnings
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    Connection,
    DateTime,
    LargeBinary,
    MetaData,
    Table,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import SAWarning

from mlhf_service.database import BINARY_RESULTS

# What a restored service makes anew, or what speaks of processes and files that are not there.
LEFT_OUT = frozenset(
    {
        "alembic_version",
        "schema_floor",
        "outbox",
        "workers",
        "network_checks",
        "deletion_holds",
        "file_deletions",
    }
)
_BATCH = 500


def tables(connection: Connection) -> list[Table]:
    """The database's tables, each after those that it refers to."""
    found = MetaData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SAWarning)  # of indexes on expressions
        found.reflect(connection)
    for table in found.tables.values():
        for column in table.c:
            if isinstance(column.type, JSON):
                column.type = JSON(none_as_null=True)
    return [table for table in found.sorted_tables if table.name not in LEFT_OUT]


def dump(connection: Connection, table: Table) -> Iterator[dict[str, Any]]:
    """Every row of a table, its values as JSON has them."""
    statement = table.select().order_by(*table.primary_key.columns)
    streamed = connection.execution_options(yield_per=_BATCH)
    if any(isinstance(column.type, LargeBinary) for column in table.columns):
        statement = statement.execution_options(**BINARY_RESULTS)
    for row in streamed.execute(statement).mappings():
        yield {name: _encode(value) for name, value in row.items()}


def load(connection: Connection, table: Table, lines: Iterator[bytes]) -> int:
    """Insert the rows that ``dump`` gave, as lines of JSON. Returns how many."""
    count, batch = 0, []
    for line in lines:
        row = json.loads(line)
        batch.append({name: _decode(table, name, value) for name, value in row.items()})
        if len(batch) == _BATCH:
            count += _insert(connection, table, batch)
            batch = []
    return count + _insert(connection, table, batch)


def _insert(connection: Connection, table: Table, batch: Sequence[dict[str, Any]]) -> int:
    if batch:
        connection.execute(insert(table), list(batch))
    return len(batch)


def continue_numbers(connection: Connection, table: Table) -> None:
    """Let a numbered key of PostgreSQL go on after the largest that was restored."""
    keys = list(table.primary_key.columns)
    if connection.dialect.name != "postgresql" or len(keys) != 1:
        return
    name = {"table": table.name, "column": keys[0].name}
    found = text("select pg_get_serial_sequence(:table, :column)")
    if (sequence := connection.scalar(found, name)) is not None:
        largest = connection.scalar(select(func.max(keys[0])))
        if largest is not None:
            connection.execute(
                text("select setval(:name, :last)"), {"name": sequence, "last": largest}
            )


def _encode(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).astimezone(UTC).isoformat()
    if isinstance(value, bytes | memoryview):
        return base64.b64encode(bytes(value)).decode()
    return value


def _decode(table: Table, name: str, value: Any) -> Any:
    kind = table.c[name].type
    if value is None:
        return None
    if isinstance(kind, DateTime):
        at = datetime.fromisoformat(value)
        return at if kind.timezone else at.replace(tzinfo=None)
    if isinstance(kind, LargeBinary):
        return base64.b64decode(value)
    return value
