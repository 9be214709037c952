"""CSV that no spreadsheet takes for a formula."""

import csv
import io
from collections.abc import Iterable, Sequence

from mlhf.core.metrics import json_number

_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")


def safe(text: str) -> str:
    """Text as a cell: what a spreadsheet would compute is quoted with an apostrophe."""
    return f"'{text}" if text.startswith(_FORMULA) else text


def table(header: Sequence[object], rows: Iterable[Sequence[object]]) -> bytes:
    """A CSV file (RFC 4180, UTF-8). Text is made safe; None is an empty cell."""
    out = io.StringIO(newline="")
    writer = csv.writer(out)
    writer.writerow([_cell(value) for value in header])
    writer.writerows([[_cell(value) for value in row] for row in rows])
    return out.getvalue().encode()


def line(values: Sequence[object]) -> str:
    """One line of a table, without its end."""
    return table(values, ()).decode().removesuffix("\r\n")


def _cell(value: object) -> object:
    if isinstance(value, str):
        return safe(value)
    if isinstance(value, bool):
        return str(value).lower()
    return json_number(value) if isinstance(value, float) else value
