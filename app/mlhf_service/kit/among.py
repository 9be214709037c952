"""Whether a column has one of many ids."""

from collections.abc import Collection

from sqlalchemy import ColumnElement, String, func, literal, literal_column, select
from sqlalchemy.orm import InstrumentedAttribute, Session


def among(
    session: Session, column: InstrumentedAttribute[str], values: Collection[str]
) -> ColumnElement[bool]:
    """As ``column.in_(values)``, cheaper on PostgreSQL where there are hundreds.

    They are one parameter there, a text that the database splits: of as many placeholders each is
    typed, rendered and parsed again for every statement, and of an array each is quoted. It is
    joined as a table: against ``= any(array)`` of hundreds the planner would rather read the whole
    table than its index.

    Args:
        values: Ids, or other texts that are not empty and have no comma.

    Raises:
        ValueError: One of the values is empty or holds a comma.
    """
    if session.get_bind().dialect.name != "postgresql":
        return column.in_(values)
    joined = ",".join(values)
    if joined.count(",") != max(0, len(values) - 1) or "" in values:
        raise ValueError("no value may be empty or hold a comma")
    parts = func.string_to_array(literal(joined, String), literal_column("','"))
    each = func.unnest(parts, type_=String).column_valued()
    return column.in_(select(each))
