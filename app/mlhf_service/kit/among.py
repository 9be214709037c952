"""Whether a column has one of many texts."""

from collections.abc import Collection

from sqlalchemy import ARRAY, ColumnElement, String, any_, literal
from sqlalchemy.orm import InstrumentedAttribute, Session


def among(
    session: Session, column: InstrumentedAttribute[str], values: Collection[str]
) -> ColumnElement[bool]:
    """As ``column.in_(values)``, cheaper on PostgreSQL where there are hundreds.

    They are one parameter there, an array; of as many placeholders each is typed, rendered and
    parsed again for every statement. Of a list of 100 jobs that is some 5 % of the CPU time.
    """
    if session.get_bind().dialect.name != "postgresql":
        return column.in_(values)
    return column == any_(literal(list(values), ARRAY(String)))
