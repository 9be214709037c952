"""From a query to SQL, and from SQL to a page of runs sorted by any field.

What few runs meet is looked up in its own index first; what many meet is checked run by run
until the page is full. So neither a rare nor a common condition reads all the runs.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, and_, func, not_, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlhf.core.explain import unknown
from mlhf_service.kit.pagination import Order, decode_cursor, encode_cursor, page_of_ids
from mlhf_service.kit.problems import BadRequest, Invalid
from mlhf_service.kit.search import holds
from mlhf_service.runs import fields
from mlhf_service.runs.models import Run
from mlhf_service.runs.projects import DEFAULT, Project
from mlhf_service.runs.query import All, Comparison, Not, Query, Some, Value, parse
from mlhf_service.runs.values import RunValue

RARE = 2000  # runs; so many ids are read ahead at most
_DIRECT = {"created_at", "name", "status", "optimizer", "model", "dataset"}


def condition(session: Session, text: str) -> ColumnElement[bool]:
    """The condition that a query asks of runs. Raises Invalid at ``filter``."""
    return _of(session, parse(text), outer=True)


def _of(session: Session, query: Query, outer: bool) -> ColumnElement[bool]:
    match query:
        case All(parts):
            return and_(*(_of(session, part, outer) for part in parts))
        case Some(parts):
            return or_(*(_of(session, part, False) for part in parts))
        case Not(part):
            return not_(_of(session, part, False))
        case Comparison():
            return _compare(session, query, outer)


def _compare(session: Session, one: Comparison, outer: bool) -> ColumnElement[bool]:
    name = fields.find(session, one.field, "filter")
    if name == "project":
        return _project(session, one)
    if name in fields.ATTRIBUTES:
        return _attribute(name, one)
    if one.operator == "null":
        return not_(fields.has_value(name))
    conditions = or_(*(_value(name, one, value) for value in one.values))
    if outer and one.operator != "!=":
        # A few ids from the index of values, where there are few.
        matching = select(RunValue.run_id).where(RunValue.key == name, conditions)
        count = select(func.count()).select_from(matching.limit(RARE + 1).subquery())
        if (session.scalar(count) or 0) <= RARE:
            return Run.id.in_(matching.correlate(None))
    return fields.has_value(name, conditions)


def _value(name: str, one: Comparison, value: Value) -> ColumnElement[bool]:
    if one.operator in ("~", "!~"):
        found = holds(RunValue.text, str(value))
        return not_(found) if one.operator == "!~" else found
    number = value if isinstance(value, float) else _as_number(value)
    symbol = "=" if one.operator == "in" else one.operator
    if isinstance(value, float):
        return _operate(RunValue.number, symbol, value)
    by_text = _operate(RunValue.text, symbol, str(value))
    if number is None or symbol != "=":
        return by_text
    return or_(by_text, and_(RunValue.text.is_(None), RunValue.number == number))


def _as_number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _operate(column: Any, operator: str, value: Any) -> ColumnElement[bool]:
    found: dict[str, ColumnElement[bool]] = {
        "=": column == value,
        "!=": column != value,
        "<": column < value,
        "<=": column <= value,
        ">": column > value,
        ">=": column >= value,
    }
    return found[operator]


def _attribute(name: str, one: Comparison) -> ColumnElement[bool]:
    column = fields.ATTRIBUTES[name]
    if one.operator == "null":
        return column.is_(None)
    if one.operator in ("~", "!~"):
        if name in (*fields.TIMES, *fields.NUMBERS):
            what = "time" if name in fields.TIMES else "number"
            message = f"{name} is a {what}, and only texts are searched: compare it by =, < or >"
            raise Invalid.at("filter", f"{message}; given: {one.operator}")
        text = _text(one.values[0])
        found = holds(column, text)
        if name == "dataset":
            found = or_(found, holds(func.coalesce(Run.dataset_name, ""), text))
        return not_(found) if one.operator == "!~" else found
    values = [_typed(name, value) for value in one.values]
    if name == "dataset" and one.operator in ("=", "!=", "in"):
        # An upload is meant by its id as well as by its name.
        same = or_(Run.dataset.in_(values), func.coalesce(Run.dataset_name, "").in_(values))
        return not_(same) if one.operator == "!=" else same
    if one.operator == "in":
        return column.in_(values)
    return _operate(column, one.operator, values[0])


def _text(value: Value) -> str:
    return f"{value:g}" if isinstance(value, float) else value


def _typed(name: str, value: Value) -> Any:
    if name in fields.TIMES:
        try:
            at = datetime.fromisoformat(_text(value))
        except ValueError:
            message = f"{name} is compared with a time such as 2027-01-31 or 2027-01-31T08:00Z"
            raise Invalid.at("filter", f"{message}; given: {_text(value)!r}") from None
        return at if at.tzinfo else at.replace(tzinfo=UTC)
    if name in fields.NUMBERS:
        if not isinstance(value, float):
            raise Invalid.at("filter", f"{name} is compared with a number; given: {value!r}")
        return value
    return _text(value)


def _project(session: Session, one: Comparison) -> ColumnElement[bool]:
    if one.operator == "null":
        return Run.project_id.is_(None)
    if one.operator not in ("=", "!=", "in"):
        raise Invalid.at("filter", "project is compared with =, != or in")
    found = project_condition(session, [_text(value) for value in one.values], "filter")
    return not_(found) if one.operator == "!=" else found


def project_condition(
    session: Session, names: Sequence[str], pointer: str, column: Any = Run.project_id
) -> ColumnElement[bool]:
    """Whether a run, or with ``column`` a job, is in one of the projects, by name or id."""
    wanted = or_(Project.name.in_(names), Project.id.in_(names))
    rows = session.execute(select(Project.id, Project.name).where(wanted)).all()
    known = {text for row in rows for text in row} | {DEFAULT}
    if missing := [name for name in names if name not in known]:
        raise Invalid.at(pointer, unknown_project(session, missing[0]))
    conditions: list[ColumnElement[bool]] = []
    if rows:
        conditions.append(func.coalesce(column, "").in_([row.id for row in rows]))
    if DEFAULT in names:
        conditions.append(column.is_(None))
    return or_(*conditions)


def unknown_project(session: Session, name: str) -> str:
    """What to say of a project that there is not."""
    names = session.scalars(select(Project.name).order_by(Project.name).limit(50))
    return f"{unknown('project', name, [DEFAULT, *names])}. POST /v1/projects makes one"


def page(
    session: Session, statement: Select[Any], sort: str, limit: int, cursor: str | None
) -> tuple[list[str], str | None]:
    """The ids of one page of runs, and the cursor of the next page.

    Args:
        sort: A field's name, with ``-`` in front for the largest first. Runs without a value of
            it come last.
    """
    down, asked = sort.startswith("-"), sort.removeprefix("-")
    name = fields.find(session, asked, "sort")
    if name in fields.ATTRIBUTES or name == "project":
        column: InstrumentedAttribute[Any] = (
            Run.id if name in ("created_at", "id") else fields.ATTRIBUTES.get(name, Run.project_id)
        )
        if name in _DIRECT or name == "id":
            return page_of_ids(session, statement, Order(column, Run.id, down), limit, cursor)
        raise Invalid.at(
            "sort",
            f"runs are not sorted by {name}: take one of {', '.join(sorted(_DIRECT))}, "
            "a hyperparameter, a metric, seconds or a tag",
        )
    return _by_value(session, statement, name, down, limit, cursor)


def _by_value(
    session: Session, statement: Select[Any], name: str, down: bool, limit: int, cursor: str | None
) -> tuple[list[str], str | None]:
    numbers = fields.is_number(session, name)
    value = RunValue.number if numbers else RunValue.text
    kind: type = float if numbers else str
    rest, after = None, None
    if cursor is not None:
        try:
            [rest] = decode_cursor(cursor, [str])
        except BadRequest:
            after = decode_cursor(cursor, [kind, str])
    rows: list[tuple[Any, str]] = []
    if rest is None:
        rows = _with_value(session, statement, name, value, down, limit + 1, after)
        if len(rows) > limit:
            return [one for _, one in rows[:limit]], encode_cursor(rows[limit - 1])
    ids = [one for _, one in rows]
    without = _without(session, statement, name, value, limit + 1 - len(ids), rest)
    if len(ids) + len(without) <= limit:
        return ids + without, None
    shown = (ids + without)[:limit]
    # The last that is shown has no value, unless the page just ended with those that have one.
    last = [shown[-1]] if len(shown) > len(ids) else ["~"]
    return shown, encode_cursor(last)


def _with_value(
    session: Session,
    statement: Select[Any],
    name: str,
    value: Any,
    down: bool,
    limit: int,
    after: Sequence[Any] | None,
) -> list[tuple[Any, str]]:
    order = (value.desc(), RunValue.run_id.desc()) if down else (value, RunValue.run_id)
    found = (
        statement.with_only_columns(value, RunValue.run_id)
        .where(RunValue.run_id == Run.id, RunValue.key == name, value.is_not(None))
        .order_by(*order)
        .limit(limit)
    )
    if after is not None:
        last, last_id = after
        beyond = value < last if down else value > last
        same = RunValue.run_id < last_id if down else RunValue.run_id > last_id
        at_most = value <= last if down else value >= last
        found = found.where(at_most, or_(beyond, and_(value == last, same)))
    return [(row[0], row[1]) for row in session.execute(found)]


def _without(
    session: Session, statement: Select[Any], name: str, value: Any, limit: int, before: str | None
) -> list[str]:
    """Runs that have no such value, the newest first."""
    found = (
        statement.with_only_columns(Run.id)
        .where(not_(fields.has_value(name, value.is_not(None))))
        .where(Run.id < before if before is not None else true())
        .order_by(Run.id.desc())
        .limit(limit)
    )
    return list(session.scalars(found))
