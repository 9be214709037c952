"""Numbers or categories: what each column of a table is, and why. Never a silent change."""

import math
from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.core.optional import from_extra
from mlhf.data.params import TableParams
from mlhf.data.table_file import (
    is_parquet,
    may_have_leading_zeros,
    no_header_hint,
    read_as_texts,
    read_dialect,
    read_table,
    read_texts,
)
from mlhf.data.table_numbers import MISSING, NumberFormat, ambiguous, formats_of, is_number

with from_extra("data"):
    import pyarrow as pa
    import pyarrow.compute as pc

# What programs call a column of row numbers, beside pandas' "Unnamed: 0".
_INDEX_NAMES = ("", "index", "id")
_PANDAS_INDEX = "__index_level_0__"


@dataclass(frozen=True)
class ColumnType:
    """What a column was read as.

    Attributes:
        why: What that follows from.
        format: How its numbers were written, where not as plain numbers.
        missing: How many values are missing (before rows are dropped).
        doubt: What else it could have been.
    """

    why: str
    format: NumberFormat | None = None
    missing: int = 0
    doubt: str | None = None


@dataclass(frozen=True)
class Typed:
    """A table whose columns are numbers or texts, with nulls for what is missing.

    Attributes:
        types: Of the columns that are used.
        dropped: Rows left out because a value is missing.
        row_numbers: Columns left out because they only count the rows.
    """

    table: pa.Table
    types: dict[str, ColumnType]
    dropped: int = 0
    row_numbers: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Texts:
    """A column of text: what occurs in it without what is missing, and how often.

    Attributes:
        formats: Those that fit all of it, of those that the parameters allow.
    """

    counts: dict[str, int]
    formats: list[NumberFormat]

    @property
    def marks(self) -> set[str]:
        """The decimal marks of its formats."""
        return {format.decimal for format in self.formats}

    @property
    def numbers(self) -> int:
        """Rows that hold a number in some format."""
        return sum(count for text, count in self.counts.items() if is_number(text))

    @property
    def rows(self) -> int:
        return sum(self.counts.values())


def typed_table(path: Path, params: TableParams) -> Typed:
    """Read a table, and find the types of the columns that are used.

    Raises:
        DataError: Numbers and other texts are mixed in a column; a number can be read in two
            ways; values are missing, where the parameters do not say what to do.
    """
    decimal = params.decimal or "."
    table = read_table(path, params, decimal)
    _check_names(table.column_names, params, path)
    row_numbers = _row_numbers(table, params)
    # The target is no input anyway: to ignore it as one too is no mistake.
    ignored = [name for name in (*params.ignore, *row_numbers) if name not in params.targets]
    params = params.model_copy(update={"ignore": ignored})
    names = [name for name in table.column_names if name not in params.ignore]
    if params.rules == 1:
        return Typed(table, {name: ColumnType(_stored(table, name)) for name in names})
    codes = _codes(path, table, params)
    table, apart = _replaced(table, codes), {*params.categorical, *codes}
    texts = _texts(table, names, apart, params)
    marks = _marks(texts)
    if not is_parquet(path) and params.decimal is None and marks == {","}:
        # What looks like 1.234 may then be 1234: those columns are looked at as texts too.
        decimal = ","
        table = _replaced(read_table(path, params, decimal), codes)
        texts = _texts(table, names, apart, params)
        marks |= _marks(texts)
    elif any(pa.types.is_floating(value_type(table, name)) for name in names):
        marks.add(decimal)
    types = {}
    for name in names:
        kind = value_type(table, name)
        if name in params.categorical:
            if not is_text(kind):
                as_text = pc.cast(table.column(name), pa.string())
                table = table.set_column(table.column_names.index(name), name, as_text)
            types[name] = ColumnType("named in `categorical`")
        elif name in codes:
            types[name] = _code(codes[name])
        elif is_parquet(path):
            types[name] = ColumnType(_stored(table, name), doubt=_stored_as_text(texts.get(name)))
        elif name in texts:
            table, types[name] = _number_or_category(table, name, texts[name], marks, params)
        elif decimal == "," and pa.types.is_floating(kind):
            format = NumberFormat(",", ".")
            types[name] = ColumnType(f"all values are numbers with {format}", format)
        else:
            types[name] = ColumnType(_stored(table, name))
        if name in params.numeric and is_text(value_type(table, name)):
            raise SpecError(
                f"/params/numeric/{params.numeric.index(name)}",
                f"column {name!r} holds texts that are no numbers, or are stored as text",
            )
    return replace(_without_missing(table, types, path, params), row_numbers=row_numbers)


def _row_numbers(table: pa.Table, params: TableParams) -> tuple[str, ...]:
    """Return the columns that an index left behind: in sorted rows they would tell the target."""
    if params.rules == 1 or params.row_numbers == "use":
        return ()
    chosen = {*params.targets, *params.ignore, *params.categorical, *params.numeric}
    return tuple(n for n in table.column_names if n not in chosen and _counts_rows(table, n))


def _counts_rows(table: pa.Table, name: str) -> bool:
    column, plain = table.column(name), name.strip().casefold()
    if not pa.types.is_integer(column.type) or column.null_count:
        return False
    if plain == _PANDAS_INDEX:  # written where it is not 0, 1, 2, …, as after a choice of rows
        return int(pc.count_distinct(column).as_py()) == len(column)
    if plain not in _INDEX_NAMES and not plain.startswith("unnamed:"):
        return False
    values = column.to_numpy()
    return values[0] in (0, 1) and np.array_equal(values, np.arange(len(values)) + values[0])


def _codes(path: Path, table: pa.Table, params: TableParams) -> dict[str, pa.ChunkedArray]:
    """Return the columns of digits of a CSV file that start with a zero somewhere, as texts.

    007 is a code (of a place, an article, a class): as a number it would be another one.
    """
    if is_parquet(path) or params.rules == 1:
        return {}
    apart = {*params.ignore, *params.categorical, *params.numeric}
    names = [
        name
        for name in table.column_names
        if name not in apart
        and (pa.types.is_integer(kind := value_type(table, name)) or pa.types.is_floating(kind))
    ]
    if not names or not may_have_leading_zeros(path, params):
        return {}
    texts = read_as_texts(path, params, names)
    return {name: texts.column(name) for name in names if _are_codes(texts.column(name))}


def _are_codes(column: pa.ChunkedArray) -> bool:
    digits = pc.all(pc.match_substring_regex(column, r"^[0-9]+$")).as_py()
    return bool(digits and pc.any(pc.match_substring_regex(column, r"^0[0-9]")).as_py())


def _code(column: pa.ChunkedArray) -> ColumnType:
    first = column.filter(pc.match_substring_regex(column, r"^0[0-9]"))[0].as_py()
    return ColumnType(
        f"digits that start with a zero, such as {first[:40]!r}",
        doubt=f"digits that start with a zero, such as {first[:40]!r}, are a code; put the column "
        "into `numeric` if they are numbers",
    )


def _replaced(table: pa.Table, columns: dict[str, pa.ChunkedArray]) -> pa.Table:
    for name, column in columns.items():
        table = table.set_column(table.column_names.index(name), name, column)
    return table


def _check_names(names: list[str], params: TableParams, path: Path) -> None:
    for at, target in enumerate(params.targets):
        if target in names:
            continue
        hint = "" if is_parquet(path) else no_header_hint(read_dialect(path, params))
        raise SpecError(
            "/params/target" if isinstance(params.target, str) else f"/params/target/{at}",
            f"no column {target!r}; there are: {', '.join(names)[:500]}{hint}",
        )
    for key in ("ignore", "categorical", "numeric"):
        for index, name in enumerate(getattr(params, key)):
            if name not in names:
                raise SpecError(f"/params/{key}/{index}", f"no column {name!r}")
            if key == "numeric" and name in params.categorical:
                raise SpecError(
                    f"/params/numeric/{index}", f"column {name!r} is in `categorical` too"
                )


def is_missing(text: str, params: TableParams, number: bool) -> bool:
    """Whether a text stands for a missing value."""
    if params.missing_values is not None:
        return text.strip() in params.missing_values or (number and not text.strip())
    return number and text.strip().casefold() in MISSING


def is_text(kind: pa.DataType) -> bool:
    """Whether values are text."""
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def value_type(table: pa.Table, name: str) -> pa.DataType:
    """Return the type of a column's values, packed as a dictionary or not."""
    kind = table.schema.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _stored(table: pa.Table, name: str) -> str:
    kind = value_type(table, name)
    names = {"int64": "whole numbers", "double": "decimal numbers", "bool": "true or false"}
    return f"holds {'text' if is_text(kind) else names.get(str(kind), f'values of type {kind}')}"


def _texts(
    table: pa.Table, names: list[str], apart: Collection[str], params: TableParams
) -> dict[str, _Texts]:
    """Return the columns of text that may hold numbers, without those set apart."""
    found = {}
    for name in names:
        if is_text(value_type(table, name)) and name not in apart:
            counted = table.column(name).value_counts().to_pylist()
            counts = {
                each["values"]: each["counts"]
                for each in counted
                if each["values"] is not None and not is_missing(each["values"], params, True)
            }
            found[name] = _Texts(counts, formats_of(counts, params.decimal, params.thousands))
    return found


def _marks(texts: dict[str, _Texts]) -> set[str]:
    """Return the decimal marks of the columns that can have but one."""
    return set().union(*(column.marks for column in texts.values() if len(column.marks) == 1))


def _number_or_category(
    table: pa.Table, name: str, column: _Texts, marks: set[str], params: TableParams
) -> tuple[pa.Table, ColumnType]:
    if not column.formats:
        if column.rows == 0 or 2 * column.numbers < column.rows:
            doubt = None
            if column.numbers:
                doubt = f"{column.numbers} of {column.rows} values look like numbers"
            return table, ColumnType("texts that are no numbers", doubt=doubt)
        raise _mixed(table, name, column, params)
    format = _agreed(name, column, marks)
    values = {text: format.parse(text) for text in column.counts}
    whole = not format.percent and all(
        value.is_integer() and abs(value) < 2**53 and format.decimal not in text
        for text, value in values.items()
    )
    packed = packed_texts(table.column(name))
    lookup = [
        None if text not in values else int(values[text]) if whole else values[text]
        for text in packed.dictionary.to_pylist()
    ]
    numbers = pa.array(lookup, pa.int64() if whole else pa.float64()).take(packed.indices)
    at = table.column_names.index(name)
    why = f"all values are numbers with {format}"
    return table.set_column(at, name, numbers), ColumnType(why, format)


def _agreed(name: str, column: _Texts, marks: set[str]) -> NumberFormat:
    """Return the format of a column; of two decimal marks that of the rest of the table."""
    formats = column.formats
    doubtful = ambiguous(column.counts, formats)
    if doubtful is None:
        return formats[0]
    if len(marks) == 1:
        fitting = [format for format in formats if format.decimal in marks]
        if fitting and ambiguous(column.counts, fitting) is None:
            return fitting[0]
    text, values = doubtful
    raise DataError(
        f"column {name!r}: {text!r} can be read as {' or '.join(f'{v:g}' for v in values)}; set "
        "`decimal` to '.' or ','"
    )


def _mixed(table: pa.Table, name: str, column: _Texts, params: TableParams) -> DataError:
    """Name the first value that keeps a column from being numbers."""
    odd = next((text for text in column.counts if not is_number(text)), None)
    if odd is None:
        # All are numbers, but not in one format: find the first that the ones before exclude.
        seen: list[str] = []
        for odd in column.counts:
            seen.append(odd)
            if not formats_of(seen, params.decimal, params.thousands):
                break
        row = _row(table, name, str(odd))
        return DataError(
            f"column {name!r}: {odd!r} in row {row} is not a number in the format of the values "
            f"before it (such as {seen[0]!r}); write them alike, set `decimal` or `thousands`, or "
            "put the column into `categorical`"
        )
    return DataError(
        f"column {name!r}: {column.numbers} of {column.rows} values are numbers, but row "
        f"{_row(table, name, odd)} holds {odd!r}; correct it, put it into `missing_values` if it "
        "stands for a missing value, or put the column into `categorical`"
    )


def _row(table: pa.Table, name: str, text: str) -> int:
    """Return the row of a text's first occurrence, counted from 1."""
    return int(pc.index(pc.cast(table.column(name), pa.string()), text).as_py()) + 1


def _stored_as_text(column: _Texts | None) -> str | None:
    if column is None or not column.rows or column.numbers < column.rows:
        return None
    return "the values look like numbers, but are stored as text"


def _without_missing(
    table: pa.Table, types: dict[str, ColumnType], path: Path, params: TableParams
) -> Typed:
    keep = np.ones(table.num_rows, bool)
    for name, kind in types.items():
        table = _nulled(table, name, params)
        empty = table.column(name).is_null().to_numpy()
        if not empty.any():
            continue
        if params.missing == "refuse":
            raise _missing(table, name, empty, path, params)
        types[name] = replace(kind, missing=int(empty.sum()))
        if params.missing == "drop" or name in (*params.targets, params.sample_weights):
            keep &= ~empty
    if keep.all():
        return Typed(table, types)
    if not keep.any():
        raise DataError("every row has a missing value; set `missing` to fill, or ignore columns")
    return Typed(table.filter(pa.array(keep)), types, int((~keep).sum()))


def _nulled(table: pa.Table, name: str, params: TableParams) -> pa.Table:
    """Replace what stands for a missing value by null."""
    column, kind = table.column(name), value_type(table, name)
    at, given = table.column_names.index(name), params.missing_values or []
    if is_text(kind):
        packed = packed_texts(column)
        texts = packed.dictionary.to_pylist()
        empty = [text is not None and is_missing(text, params, False) for text in texts]
        if not any(empty):
            return table
        codes = pa.array([None if gone else code for code, gone in enumerate(empty)], pa.int32())
        packed = pa.DictionaryArray.from_arrays(codes.take(packed.indices), packed.dictionary)
        return table.set_column(at, name, packed)
    if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
        return table
    values = np.array(pc.cast(column, pa.float64(), safe=False).to_numpy())
    gone = np.isin(values, [float(text) for text in given if _is_float(text)])
    if params.missing != "refuse":
        gone |= np.isnan(values)
    if not gone.any():
        return table
    nulled = pc.if_else(pa.array(gone), pa.scalar(None, column.type), column)
    return table.set_column(at, name, nulled)


def packed_texts(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """Return a column of texts as one dictionary: a long text in every row takes no memory."""
    if not pa.types.is_dictionary(column.type):
        column = column.dictionary_encode()
    packed = column.unify_dictionaries().combine_chunks()
    if isinstance(packed, pa.ChunkedArray):
        packed = packed.chunk(0)
    # Positions may be unsigned, as polars writes them, and then none can be -1.
    return pa.DictionaryArray.from_arrays(packed.indices.cast(pa.int32()), packed.dictionary)


def _is_float(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _missing(
    table: pa.Table, name: str, empty: np.ndarray, path: Path, params: TableParams
) -> DataError:
    row = int(np.argmax(empty))
    shown = ""
    if not is_parquet(path):
        shown = f" ({read_texts(path, params, name)[row]!r})"
    return DataError(
        f"column {name!r}: {int(empty.sum())} values are missing, the first in row {row + 1}"
        f"{shown}; fill them in, set `missing` to drop or fill, or put the column into `ignore`"
    )
