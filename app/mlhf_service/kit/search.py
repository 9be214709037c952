"""Search in names."""

from typing import Any

from sqlalchemy import ColumnElement, func
from sqlalchemy.orm import InstrumentedAttribute


def holds(column: InstrumentedAttribute[str], text: str) -> ColumnElement[bool]:
    """Whether a name holds ``text``, in upper or lower case.

    Written as PostgreSQL's index of trigrams is; ILIKE would read every row.
    """
    escaped = text.replace("/", "//").replace("%", "/%").replace("_", "/_")
    name: ColumnElement[Any] = func.lower(column)
    return name.contains(func.lower(escaped), escape="/")
