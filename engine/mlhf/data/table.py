"""One CSV or Parquet table. Text columns become one-hot inputs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.core.optional import from_extra
from mlhf.data import files
from mlhf.data.arrays import (
    MAX_CLASSES,
    Array,
    Arrays,
    Split,
    check_finite,
    held_out,
    held_out_count,
    subset_indices,
    subset_size,
)
from mlhf.data.formats import TABLE_SUFFIXES
from mlhf.data.info import DataInfo, Task
from mlhf.data.params import TableParams
from mlhf.data.report import (
    SAMPLE_ROWS,
    ColumnReport,
    Inspection,
    Progress,
    Report,
    SplitReport,
    class_reports,
    held_out_split,
    listed,
)
from mlhf.data.table_file import is_parquet, read_dialect
from mlhf.data.table_numbers import NumberFormat
from mlhf.data.table_types import Typed, is_text, packed_texts, typed_table, value_type

with from_extra("data"):
    import pyarrow as pa
    import pyarrow.compute as pc

MAX_CATEGORIES = 1000
_MAX_FEATURES = 65_536
_FEW = 20
# As many categories are reported where they are about as many as the rows.
_SUSPICIOUS = 10
MAX_COLUMNS_LISTED = 1000


@dataclass(frozen=True)
class _Column:
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
            return _numbers(table, self.name, self.fill)[:, None]
        _, codes = _coded(table, self.name)
        return np.asarray(codes[:, None] == np.arange(self.width), np.float64)


@dataclass(frozen=True)
class _Described:
    info: DataInfo
    columns: tuple[_Column, ...]
    typed: Typed

    @property
    def table(self) -> pa.Table:
        return self.typed.table


def describe(params: TableParams, root: Path | None) -> DataInfo:
    """Read the table: categories are in no header."""
    return _described(params, root).info


def validate(params: TableParams, root: Path | None) -> DataInfo:
    """Read the table and check every value, a column at a time."""
    return inspect(params, root).info


def inspect(params: TableParams, root: Path | None, progress: Progress | None = None) -> Inspection:
    """Read the table, check every value, and report the columns."""
    found = _described(params, root)
    for column in found.columns:
        if column.categories is None:
            column.encode(found.table)
    targets = _targets(params, found)
    return Inspection(found.info, _report(params, found, targets, _file(root)))


def read(params: TableParams, root: Path | None) -> Arrays:
    """Return inputs (N, F) and targets."""
    found = _described(params, root)
    rows = found.table.num_rows
    inputs = np.empty((rows, found.info.input_shape[0]))
    at = 0
    for column in found.columns:
        inputs[:, at : at + column.width] = column.encode(found.table)
        at += column.width
    targets = _targets(params, found)
    train, test = held_out(rows, params.test_fraction)
    train = train[subset_indices(len(train), params.train_samples, "train_samples")]
    test = test[subset_indices(len(test), params.test_samples, "test_samples")]
    return Arrays(
        found.info,
        Split(inputs[train], targets[train]),
        Split(inputs[test], targets[test]),
        scaled=np.repeat(
            [c.categories is None for c in found.columns], [c.width for c in found.columns]
        ),
        notes={"columns": [column.note() for column in found.columns]},
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of the file."""
    path = _file(root)
    return files.digest([path], path)


def _file(root: Path | None) -> Path:
    return files.only_file(root, TABLE_SUFFIXES)


def _described(params: TableParams, root: Path | None) -> _Described:
    path = _file(root)
    typed = typed_table(path, params)
    table = typed.table
    names = table.column_names
    used = [name for name in names if name != params.target and name in typed.types]
    if not used:
        hint = ""
        if typed.row_numbers:
            hint = f" and row numbers in {typed.row_numbers[0]!r}; set `row_numbers` to use"
        raise DataError(f"the table has no input columns beside the target{hint}")
    test = held_out_count(table.num_rows, params.test_fraction)
    for name in (params.target, *used):
        if not typed.types[name].missing:
            _complete(table, name)
    train, _ = held_out(table.num_rows, params.test_fraction)
    columns = tuple(_column(typed, name, train) for name in used)
    features = sum(column.width for column in columns)
    if features > _MAX_FEATURES:
        raise DataError(f"the columns give {features} inputs; at most {_MAX_FEATURES} are taken")
    files.check_held(table.num_rows, 8 * features, "/params/ignore")
    task, names_of_classes = _task(params, typed)
    info = DataInfo(
        kind="table",
        input_shape=(features,),
        outputs=len(names_of_classes) if names_of_classes else 1,
        task=task,
        train_samples=subset_size(table.num_rows - test, params.train_samples, "train_samples"),
        test_samples=subset_size(test, params.test_samples, "test_samples"),
        class_names=names_of_classes,
    )
    return _Described(info, columns, typed)


def _column(typed: Typed, name: str, train: Array) -> _Column:
    table = typed.table
    kind = value_type(table, name)
    if _is_number(kind):
        fill = None
        if table.column(name).null_count:
            present = table.column(name).take(pa.array(train)).drop_null()
            if len(present) == 0:
                raise DataError(f"column {name!r}: no value is present among the training rows")
            fill = float(np.mean(present.cast(pa.float64(), safe=False).to_numpy()))
        return _Column(name, None, typed.types[name].format, fill)
    if not is_text(kind):
        raise DataError(
            f"column {name!r}: values of type {kind} are neither numbers nor text; convert it, "
            "or put it into `ignore`"
        )
    categories, _ = _coded(table, name)
    if len(categories) > MAX_CATEGORIES:
        raise DataError(
            f"column {name!r}: {len(categories)} different texts are too many for categories "
            f"(at most {MAX_CATEGORIES}); put it into `ignore`{_or(typed, name)}"
        )
    return _Column(name, categories, missing=table.column(name).null_count > 0)


def _or(typed: Typed, name: str) -> str:
    """What to add to an error about a column that could have been another type."""
    doubt = typed.types[name].doubt
    return "" if doubt is None else f" ({doubt})"


def _task(params: TableParams, typed: Typed) -> tuple[Task, tuple[str, ...] | None]:
    """Return the task and, for classification, the names of the classes."""
    table = typed.table
    kind = value_type(table, params.target)
    classes = params.task == "classification"
    if params.task == "auto":
        classes = is_text(kind) or bool(pa.types.is_boolean(kind))
        if pa.types.is_integer(kind):
            classes = len(pc.unique(_complete(table, params.target))) <= _FEW
    if not classes:
        if not _is_number(kind):
            raise SpecError(
                "/params/target",
                f"column {params.target!r} holds {kind}, not numbers to predict"
                f"{_or(typed, params.target)}",
            )
        return "regression", None
    names, _ = _classes(table, params.target)
    if len(names) < 2:
        raise DataError(f"column {params.target!r}: all rows are of the same class")
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"column {params.target!r}: {len(names)} classes; at most {MAX_CLASSES}"
            f"{_or(typed, params.target)}"
        )
    return "classification", names


def _targets(params: TableParams, found: _Described) -> Array:
    """Return labels (N,) or regression targets (N, 1)."""
    if found.info.task == "classification":
        return _classes(found.table, params.target)[1]
    return _numbers(found.table, params.target)[:, None]


def _classes(table: pa.Table, name: str) -> tuple[tuple[str, ...], Array]:
    """Return the names of the classes in order of their values, and the labels."""
    if is_text(value_type(table, name)):
        return _coded(table, name)
    if not _is_number(value_type(table, name)):
        raise SpecError("/params/target", f"column {name!r} holds neither text nor numbers")
    values, labels = np.unique(_numbers(table, name), return_inverse=True)
    if pa.types.is_boolean(value_type(table, name)):
        names = tuple("true" if value else "false" for value in values)
    else:
        names = tuple(f"{value:.15g}" for value in values)
    return names, labels.astype(np.int64)


def _coded(table: pa.Table, name: str) -> tuple[tuple[str, ...], Array]:
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


def _numbers(table: pa.Table, name: str, fill: float | None = None) -> Array:
    """Return a column as float64 after checking that all values are finite."""
    values = _complete(table, name) if fill is None else table.column(name)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    values = values.cast(pa.float64(), safe=False)
    numbers = np.asarray((values if fill is None else values.fill_null(fill)).to_numpy())
    check_finite(numbers, f"column {name!r}")
    return numbers


def _complete(table: pa.Table, name: str) -> pa.ChunkedArray:
    """Return a column. Raises DataError when values are missing."""
    values = table.column(name)
    if values.null_count:
        raise DataError(
            f"column {name!r}: {values.null_count} values are missing; fill them, remove the "
            "rows, or put the column into `ignore`"
        )
    return values


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _report(params: TableParams, found: _Described, targets: Array, path: Path) -> Report:
    info, types = found.info, found.typed.types
    columns = {column.name: column for column in found.columns}
    report = Report(label=params.target, dropped_rows=found.typed.dropped)
    for name in found.table.column_names:
        if name not in types:
            continue
        kind = types[name]
        if name == params.target:
            type_, width = ("class" if info.task == "classification" else "number"), 0
            why = f"{kind.why}; {_why_task(params, found)}"
        else:
            type_ = "number" if columns[name].categories is None else "category"
            why, width = kind.why, columns[name].width
        report.columns.append(
            ColumnReport(
                name=name,
                role="target" if name == params.target else "input",
                type=type_,
                why=why,
                inputs=width,
                missing=kind.missing,
            )
        )
        if kind.format is not None:
            report.converted.append(f"{name}: numbers written with {kind.format}")
        if kind.doubt is not None:
            report.guessed.append(f"{name}: taken as texts; {kind.doubt}")
        if name in columns and (note := _nearly_unique(columns[name], found.table)) is not None:
            report.guessed.append(note)
        if kind.missing:
            fill = columns[name].fill if name in columns else None
            if params.missing == "drop" or name == params.target:
                what = "their rows are dropped"
            else:
                what = (
                    "none of the categories" if fill is None else f"filled with the mean {fill:.6g}"
                )
            report.converted.append(f"{name}: {kind.missing} values are missing; {what}")
    hidden = len(report.columns) - MAX_COLUMNS_LISTED
    if hidden > 0:
        report.columns = report.columns[:MAX_COLUMNS_LISTED]
        report.guessed.append(f"{hidden} more columns are not listed")
    if not is_parquet(path):
        report.guessed += read_dialect(path, params).notes
    report.ignored = [
        f"column {name!r}: numbers of rows; set `row_numbers` to use to take it as an input"
        for name in found.typed.row_numbers
    ] + listed((f"column {name}" for name in params.ignore if name != params.target), "columns")
    train, test = held_out(found.table.num_rows, params.test_fraction)
    report.splits = [
        SplitReport(name="train", samples=len(train), source=path.name),
        SplitReport(name="test", samples=len(test), source=held_out_split(params.test_fraction)),
    ]
    if info.class_names is not None:
        report.classes = class_reports(info.class_names, targets[train], targets[test])
    shown = found.table.slice(0, SAMPLE_ROWS).select([c.name for c in report.columns[:50]])
    report.sample = [{k: _shown(v) for k, v in row.items()} for row in shown.to_pylist()]
    return report


def _nearly_unique(column: _Column, table: pa.Table) -> str | None:
    """Return what to say of categories that are about as many as the rows."""
    different = len(column.categories or ())
    rows = table.num_rows - table.column(column.name).null_count
    if different < _SUSPICIOUS or different < 0.9 * rows:
        return None
    return (
        f"{column.name}: {different} categories in {rows} rows, nearly one for each row, of which "
        "little can be learned; put the column into `ignore`, or write numbers in a usual format"
    )


def _shown(value: Any) -> Any:
    return value if isinstance(value, int | float | None) else str(value)[:100]


def _why_task(params: TableParams, found: _Described) -> str:
    if params.task != "auto":
        return f"`task` is {params.task}"
    if found.info.task == "regression":
        return "a regression target"
    if pa.types.is_integer(value_type(found.table, params.target)):
        return f"classes, as there are at most {_FEW} different ones (`task` changes that)"
    return "classes"
