"""Inputs of predictions as JSON: of tables, arrays and lists."""

import json
from collections.abc import Iterator, Mapping
from typing import Any

from mlhf_service.client.errors import ServiceError

MOST_ROWS = 10_000  # of one request


def json_rows(rows: Any) -> list[Any]:
    """Rows as plain data.

    Args:
        rows: A DataFrame, a NumPy array or tensor whose first axis is the samples, or a list of
            mappings, lists, arrays or strings. One mapping or string is one row.
    """
    if hasattr(rows, "to_dict"):  # a DataFrame: what is missing is null
        rows = rows.astype(object).where(rows.notna(), None).to_dict("records")
    found = _plain(rows)
    if isinstance(found, Mapping | str):
        found = [found]
    if not isinstance(found, list):
        given = type(rows).__name__
        raise ServiceError(f"rows must be a table, an array or a list; given: {given}")
    try:
        json.dumps(found, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ServiceError(f"rows hold what JSON has not: {error}") from None
    return found


def batches(rows: list[Any]) -> Iterator[list[Any]]:
    """The rows, as many at a time as a request takes; at least one batch."""
    for first in range(0, max(1, len(rows)), MOST_ROWS):
        yield rows[first : first + MOST_ROWS]


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # an array, a tensor, or a number of one
        return value.tolist()
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return value
