"""Columns of a table: as numbers, as categories, and as inputs of a model."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from mlhf.core.errors import DataError
from mlhf.core.optional import from_extra
from mlhf.data.arrays import Array, check_finite
from mlhf.data.table_numbers import NumberFormat
from mlhf.data.table_types import Typed, is_text, packed_texts, value_type

with from_extra("data"):
    import pyarrow as pa

MAX_CATEGORIES = 1000
# As many categories are reported where they are about as many as the rows.
_SUSPICIOUS = 10


@dataclass(frozen=True)
class Column:
    """An input column: a number, or one of a few categories.

    Attributes:
        format: How its numbers are written, where not as plain numbers.
        fill: Taken for a missing number.
        missing: The category may be missing: then it is none of the categories.
    """

    name: str
    categories: tuple[str, ...] | None = None
    format: NumberFormat | None = None
    fill: float | None = None
    missing: bool = False

    @property
    def width(self) -> int:
        return 1 if self.categories is None else len(self.categories)

    def note(self) -> dict[str, Any]:
        """Return what a prediction needs to know, as JSON values."""
        categories = None if self.categories is None else list(self.categories)
        note: dict[str, Any] = {"name": self.name, "categories": categories}
        if self.format is not None:
            note["format"] = self.format.note()
        if self.fill is not None:
            note["fill"] = self.fill
        if self.missing:
            note["missing"] = True
        return note

    def encode(self, table: pa.Table) -> Array:
        """Return the values as (N, width) float64."""
        if self.categories is None:
            return numbers(table, self.name, self.fill)[:, None]
        _, codes = coded(table, self.name)
        return np.asarray(codes[:, None] == np.arange(self.width), np.float64)


def input_column(typed: Typed, name: str, train: Array) -> Column:
    """Return what a column gives a model; a missing number is the mean of the training rows."""
    table = typed.table
    kind = value_type(table, name)
    if is_number(kind):
        fill = None
        if table.column(name).null_count:
            present = table.column(name).take(pa.array(train)).drop_null()
            if len(present) == 0:
                raise DataError(f"column {name!r}: no value is present among the training rows")
            fill = float(np.mean(present.cast(pa.float64(), safe=False).to_numpy()))
        return Column(name, None, typed.types[name].format, fill)
    if not is_text(kind):
        raise DataError(
            f"column {name!r}: values of type {kind} are neither numbers nor text; convert it, "
            "or put it into `ignore`"
        )
    categories, _ = coded(table, name)
    if len(categories) > MAX_CATEGORIES:
        raise DataError(
            f"column {name!r}: {len(categories)} different texts are too many for categories "
            f"(at most {MAX_CATEGORIES}); put it into `ignore`{alternative(typed, name)}"
        )
    return Column(name, categories, missing=table.column(name).null_count > 0)


def nearly_unique(column: Column, table: pa.Table) -> str | None:
    """Return what to say of categories that are about as many as the rows."""
    different = len(column.categories or ())
    rows = table.num_rows - table.column(column.name).null_count
    if different < _SUSPICIOUS or different < 0.9 * rows:
        return None
    return (
        f"{column.name}: {different} categories in {rows} rows, nearly one for each row, of which "
        "little can be learned; put the column into `ignore`, or write numbers in a usual format"
    )


def alternative(typed: Typed, name: str) -> str:
    """What to add to an error about a column that could have been another type."""
    doubt = typed.types[name].doubt
    return "" if doubt is None else f" ({doubt})"


def coded(table: pa.Table, name: str) -> tuple[tuple[str, ...], Array]:
    """Return the sorted texts that occur in a column, and each row's position among them.

    A missing text has the position -1. The column stays dictionary-encoded: one long text
    repeated in every row takes no memory.
    """
    packed = packed_texts(table.column(name))
    codes = packed.indices.fill_null(-1).to_numpy()
    texts = packed.dictionary.to_pylist()
    present = sorted({texts[code] for code in np.unique(codes) if code >= 0})
    position = {text: at for at, text in enumerate(present)}
    lookup = np.array([*(position.get(text, -1) for text in texts), -1], np.int64)
    return tuple(present), lookup[codes]


def numbers(table: pa.Table, name: str, fill: float | None = None) -> Array:
    """Return a column as float64 after checking that all values are finite."""
    values = complete(table, name) if fill is None else table.column(name)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    values = values.cast(pa.float64(), safe=False)
    found = np.asarray((values if fill is None else values.fill_null(fill)).to_numpy())
    check_finite(found, f"column {name!r}")
    return found


def complete(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column. Raises DataError when values are missing."""
    values = table.column(name)
    if values.null_count:
        raise DataError(
            f"column {name!r}: {values.null_count} values are missing; fill them, remove the "
            "rows, or put the column into `ignore`"
        )
    return values


def is_number(kind: pa.DataType) -> bool:
    """Whether values are numbers, or true and false."""
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)
