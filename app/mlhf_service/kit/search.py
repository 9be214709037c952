"""Search in names."""

from typing import Any

from sqlalchemy import ColumnElement, String
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import InstrumentedAttribute
from sqlalchemy.sql.functions import FunctionElement


class folded(FunctionElement[str]):  # noqa: N801 - reads as a SQL function
    """A text as ``LIKE`` compares it in upper or lower case."""

    type = String()
    inherit_cache = True


@compiles(folded)
def _lower(element: folded, compiler: Any, **kw: Any) -> str:
    return f"lower({compiler.process(element.clauses, **kw)})"


@compiles(folded, "sqlite")
def _as_it_is(element: folded, compiler: Any, **kw: Any) -> str:
    # SQLite's LIKE does so by itself, in a third of the time.
    return str(compiler.process(element.clauses, **kw))


def holds(
    column: ColumnElement[Any] | InstrumentedAttribute[Any], text: str
) -> ColumnElement[bool]:
    """Whether a text such as a name holds ``text``, in upper or lower case.

    Written as PostgreSQL's index of trigrams is; ILIKE would read every row.
    """
    escaped = text.replace("/", "//").replace("%", "/%").replace("_", "/_")
    return folded(column).contains(folded(escaped), escape="/")
