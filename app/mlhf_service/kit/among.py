"""Whether a column has one of many texts."""

from collections.abc import Collection

from sqlalchemy import ARRAY, ColumnElement, String, func, literal, select
from sqlalchemy.orm import InstrumentedAttribute, Session


def among(
    session: Session, column: InstrumentedAttribute[str], values: Collection[str]
) -> ColumnElement[bool]:
    """As ``column.in_(values)``, cheaper on PostgreSQL where there are hundreds.

    They are one parameter there, an array; of as many placeholders each is typed, rendered and
    parsed again for every statement. Of a list of 100 jobs that is some 5 % of the CPU time. It
    is joined as a table: against ``= any(array)`` of hundreds the planner would rather read the
    whole table than its index.
    """
    if session.get_bind().dialect.name != "postgresql":
        return column.in_(values)
    each = func.unnest(literal(list(values), ARRAY(String)), type_=String).column_valued()
    return column.in_(select(each))
