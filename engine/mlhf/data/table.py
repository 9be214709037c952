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
    chosen,
    counted,
    held_out,
    held_out_count,
)
from mlhf.data.formats import TABLE_SUFFIXES
from mlhf.data.info import DataInfo, Task
from mlhf.data.params import TableParams
from mlhf.data.table_file import read_table

with from_extra("data"):
    import pyarrow as pa
    import pyarrow.compute as pc

MAX_CATEGORIES = 1000
_MAX_FEATURES = 65_536
_FEW = 20


@dataclass(frozen=True)
class _Column:
    """An input column: a number, or one of a few categories."""

    name: str
    categories: tuple[str, ...] | None = None

    @property
    def width(self) -> int:
        return 1 if self.categories is None else len(self.categories)

    def note(self) -> dict[str, Any]:
        categories = None if self.categories is None else list(self.categories)
        return {"name": self.name, "categories": categories}

    def encode(self, table: pa.Table) -> Array:
        """Return the values as (N, width) float64."""
        if self.categories is None:
            return _numbers(table, self.name)[:, None]
        _, codes = _coded(table, self.name)
        return np.asarray(codes[:, None] == np.arange(self.width), np.float64)


@dataclass(frozen=True)
class _Described:
    info: DataInfo
    columns: tuple[_Column, ...]
    table: pa.Table


def describe(params: TableParams, root: Path | None) -> DataInfo:
    """Read the table: categories are in no header."""
    return _described(params, root).info


def validate(params: TableParams, root: Path | None) -> DataInfo:
    """Read the table and check every value, a column at a time."""
    found = _described(params, root)
    for column in found.columns:
        if column.categories is None:
            column.encode(found.table)
    _targets(params, found)
    return found.info


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
    train = train[chosen(len(train), params.train_samples, "train_samples")]
    test = test[chosen(len(test), params.test_samples, "test_samples")]
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
    path = files.only_file(root, TABLE_SUFFIXES)
    return files.digest([path], path)


def _described(params: TableParams, root: Path | None) -> _Described:
    table = read_table(files.only_file(root, TABLE_SUFFIXES))
    names = table.column_names
    if params.target not in names:
        raise SpecError(
            "/params/target", f"no column {params.target!r}; there are: {', '.join(names)[:500]}"
        )
    for index, name in enumerate(params.ignore):
        if name not in names:
            raise SpecError(f"/params/ignore/{index}", f"no column {name!r}")
    used = [name for name in names if name != params.target and name not in params.ignore]
    if not used:
        raise DataError("the table has no input columns beside the target")
    test = held_out_count(table.num_rows, params.test_fraction)
    columns = tuple(_column(table, name) for name in used)
    features = sum(column.width for column in columns)
    if features > _MAX_FEATURES:
        raise DataError(f"the columns give {features} inputs; at most {_MAX_FEATURES} are taken")
    files.check_held(table.num_rows, 8 * features, "/params/ignore")
    task, names_of_classes = _task(params, table)
    info = DataInfo(
        kind="table",
        input_shape=(features,),
        outputs=len(names_of_classes) if names_of_classes else 1,
        task=task,
        train_samples=counted(table.num_rows - test, params.train_samples, "train_samples"),
        test_samples=counted(test, params.test_samples, "test_samples"),
        class_names=names_of_classes,
    )
    return _Described(info, columns, table)


def _column(table: pa.Table, name: str) -> _Column:
    kind = _value_type(table, name)
    if _is_number(kind):
        _complete(table, name)
        return _Column(name)
    if not _is_text(kind):
        raise DataError(
            f"column {name!r}: values of type {kind} are neither numbers nor text; convert it, "
            "or put it into `ignore`"
        )
    categories, _ = _coded(table, name)
    if len(categories) > MAX_CATEGORIES:
        raise DataError(
            f"column {name!r}: {len(categories)} different texts are too many for categories "
            f"(at most {MAX_CATEGORIES}); put it into `ignore`"
        )
    return _Column(name, categories)


def _task(params: TableParams, table: pa.Table) -> tuple[Task, tuple[str, ...] | None]:
    """Return the task and, for classification, the names of the classes."""
    kind = _value_type(table, params.target)
    classes = params.task == "classification"
    if params.task == "auto":
        classes = _is_text(kind) or bool(pa.types.is_boolean(kind))
        if pa.types.is_integer(kind):
            classes = len(pc.unique(_complete(table, params.target))) <= _FEW
    if not classes:
        if not _is_number(kind):
            raise SpecError(
                "/params/target", f"column {params.target!r} holds {kind}, not numbers to predict"
            )
        return "regression", None
    names, _ = _classes(table, params.target)
    if len(names) < 2:
        raise DataError(f"column {params.target!r}: all rows are of the same class")
    if len(names) > MAX_CLASSES:
        raise DataError(f"column {params.target!r}: {len(names)} classes; at most {MAX_CLASSES}")
    return "classification", names


def _targets(params: TableParams, found: _Described) -> Array:
    """Return labels (N,) or regression targets (N, 1)."""
    if found.info.task == "classification":
        return _classes(found.table, params.target)[1]
    return _numbers(found.table, params.target)[:, None]


def _classes(table: pa.Table, name: str) -> tuple[tuple[str, ...], Array]:
    """Return the names of the classes in order of their values, and the labels."""
    if _is_text(_value_type(table, name)):
        return _coded(table, name)
    if not _is_number(_value_type(table, name)):
        raise SpecError("/params/target", f"column {name!r} holds neither text nor numbers")
    values, labels = np.unique(_numbers(table, name), return_inverse=True)
    if pa.types.is_boolean(_value_type(table, name)):
        names = tuple("true" if value else "false" for value in values)
    else:
        names = tuple(f"{value:.15g}" for value in values)
    return names, labels.astype(np.int64)


def _coded(table: pa.Table, name: str) -> tuple[tuple[str, ...], Array]:
    """Return the sorted texts that occur in a column, and each row's position among them.

    The column stays dictionary-encoded: one long text repeated in every row takes no memory.
    """
    values = _complete(table, name)
    if not pa.types.is_dictionary(values.type):
        values = values.dictionary_encode()
    values = values.unify_dictionaries()
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in values.chunks])
    texts = values.chunk(0).dictionary.to_pylist()
    present = sorted({texts[code] for code in np.unique(codes)})
    position = {text: at for at, text in enumerate(present)}
    lookup = np.array([position.get(text, -1) for text in texts], np.int64)
    return tuple(present), lookup[codes]


def _numbers(table: pa.Table, name: str) -> Array:
    """Return a column as float64 after checking that all values are finite."""
    values = _complete(table, name)
    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    numbers = np.asarray(values.cast(pa.float64(), safe=False).to_numpy())
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


def _value_type(table: pa.Table, name: str) -> pa.DataType:
    kind = table.schema.field(name).type
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def _is_number(kind: pa.DataType) -> bool:
    tests = (pa.types.is_integer, pa.types.is_floating, pa.types.is_boolean, pa.types.is_decimal)
    return any(test(kind) for test in tests)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))
