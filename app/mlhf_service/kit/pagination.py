"""Pages by cursor: stable while rows are added, in either direction of a sort."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, TypeVar

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import ColumnElement, Select, and_, or_
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlhf_service.kit.problems import BadRequest

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=500, description="Items a page.")]
Cursor = Annotated[str | None, Query(max_length=500, description="next_cursor of the page before.")]


class Page(BaseModel, Generic[Item]):
    """A page of a list; ``next_cursor`` is null on the last one."""

    data: list[Item]
    next_cursor: str | None = None


class Order:
    """A sort order ``name`` or ``-name`` over one column, ties broken by id."""

    def __init__(
        self, column: InstrumentedAttribute[Any], identity: InstrumentedAttribute[str], down: bool
    ) -> None:
        self.column, self.identity, self.down = column, identity, down

    def apply(self, statement: Select[Any], cursor: str | None) -> Select[Any]:
        columns = [self.column] if self.column is self.identity else [self.column, self.identity]
        statement = statement.order_by(*(c.desc() if self.down else c.asc() for c in columns))
        if cursor is None:
            return statement
        values = decode_cursor(cursor, len(columns))
        return statement.where(self._after(columns, values))

    def _after(
        self, columns: list[InstrumentedAttribute[Any]], values: list[Any]
    ) -> ColumnElement[bool]:
        if len(columns) == 1:
            only: ColumnElement[bool] = columns[0] < values[0]
            return only if self.down else columns[0] > values[0]
        first, second = columns
        beyond = first < values[0] if self.down else first > values[0]
        tie = second < values[1] if self.down else second > values[1]
        return or_(beyond, and_(first == values[0], tie))

    def cursor(self, row: Any) -> str:
        columns = [self.column] if self.column is self.identity else [self.column, self.identity]
        return encode_cursor([getattr(row, c.key) for c in columns])


def encode_cursor(values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(values)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, length: int) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        values = None
    good = isinstance(values, list) and len(values) == length
    if not good or not all(isinstance(v, str) and "\0" not in v for v in values):
        raise BadRequest.at("cursor", "This cursor is not one of ours: start without a cursor.")
    return values  # type: ignore[no-any-return]


def paginate(
    session: Session,
    statement: Select[Any],
    order: Order,
    limit: int,
    cursor: str | None,
    show: Callable[[Any], Item],
) -> Page[Item]:
    """Run ``statement`` for one page, and show each row as the API's own type."""
    rows = list(session.scalars(order.apply(statement, cursor).limit(limit + 1)))
    more = len(rows) > limit
    rows = rows[:limit]
    return Page(data=[show(r) for r in rows], next_cursor=order.cursor(rows[-1]) if more else None)
