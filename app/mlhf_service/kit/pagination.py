"""Pages by cursor: stable while rows are added, in either direction of a sort."""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Generic, Literal, TypeVar

from fastapi import Query
from pydantic import BaseModel
from sqlalchemy import Select, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlhf_service.kit.among import among
from mlhf_service.kit.problems import BadRequest

Item = TypeVar("Item")

Limit = Annotated[int, Query(ge=1, le=500, description="Items a page.")]
Cursor = Annotated[str | None, Query(max_length=500, description="next_cursor of the page before.")]
Archived = Annotated[
    Literal["false", "true", "any"],
    Query(description="`true`: only what is archived; `any`: that too."),
]


def archived_only(choice: Archived) -> bool | None:
    """What ``choice`` asks of rows: to be archived, not to be, or either (None)."""
    return None if choice == "any" else choice == "true"


_LARGEST = 2**31 - 1  # of an integer column


class Page(BaseModel, Generic[Item]):
    """A page of a list; ``next_cursor`` is null on the last one."""

    data: list[Item]
    next_cursor: str | None = None


class Order:
    """A sort order ``name`` or ``-name`` over one column, ties broken by id."""

    def __init__(
        self, column: InstrumentedAttribute[Any], identity: InstrumentedAttribute[str], down: bool
    ) -> None:
        self.identity, self.down = identity, down
        self.columns = [identity] if column is identity else [column, identity]

    def apply(self, statement: Select[Any], cursor: str | None) -> Select[Any]:
        statement = statement.order_by(*(c.desc() if self.down else c.asc() for c in self.columns))
        if cursor is None:
            return statement
        # Compared as one: an index is entered where the page before ended.
        types = [column.type.python_type for column in self.columns]
        here, last = tuple_(*self.columns), tuple_(*decode_cursor(cursor, types))
        return statement.where(here < last if self.down else here > last)


def encode_cursor(values: Sequence[Any]) -> str:
    return base64.urlsafe_b64encode(json.dumps(list(values)).encode()).decode().rstrip("=")


def decode_cursor(cursor: str, types: Sequence[type]) -> list[Any]:
    try:
        values = json.loads(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (binascii.Error, ValueError, RecursionError):
        values = None
    if not _fit(values, types):
        raise BadRequest.at("cursor", "This cursor is not one of ours: start without a cursor.")
    return values  # type: ignore[no-any-return]


def _fit(values: Any, types: Sequence[type]) -> bool:
    """Whether these are values that columns of these types can be compared with."""
    if not isinstance(values, list) or len(values) != len(types):
        return False
    for value, wanted in zip(values, types, strict=True):
        if type(value) is not wanted:
            return False
        if isinstance(value, str) and not _can_be_stored(value):
            return False
        if isinstance(value, int) and abs(value) > _LARGEST:
            return False
    return True


def _can_be_stored(value: str) -> bool:
    """Whether a database takes it: no NUL, and no half of a surrogate pair."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in value


def page_of_ids(
    session: Session, statement: Select[Any], order: Order, limit: int, cursor: str | None
) -> tuple[list[str], str | None]:
    """The ids of one page of what ``statement`` selects, and the cursor of the next page.

    Ids first: where an index holds what is filtered and sorted by, only the rows that are
    shown are ever read.
    """
    keys = order.apply(statement.with_only_columns(*order.columns), cursor).limit(limit + 1)
    rows = [tuple(row) for row in session.execute(keys)]
    following = encode_cursor(rows[limit - 1]) if len(rows) > limit else None
    return [row[-1] for row in rows[:limit]], following


def paginate(
    session: Session,
    statement: Select[Any],
    order: Order,
    limit: int,
    cursor: str | None,
    show: Callable[[Any], Item],
) -> Page[Item]:
    """Run ``statement`` for one page, and show each row as the API's own type."""
    ids, following = page_of_ids(session, statement, order, limit, cursor)
    entity = order.identity.class_
    rows = session.scalars(select(entity).where(among(session, order.identity, ids)))
    found = {row.id: row for row in rows}
    return Page(data=[show(found[i]) for i in ids if i in found], next_cursor=following)
