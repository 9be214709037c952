"""One CSV or Parquet table. Text columns become one-hot inputs."""

from pathlib import Path

import numpy as np

from mlhf.data import files
from mlhf.data.arrays import Array, Arrays, Split, held_out, subset_indices
from mlhf.data.formats import TABLE_SUFFIXES
from mlhf.data.info import DataInfo
from mlhf.data.params import TableParams
from mlhf.data.report import Inspection, Progress
from mlhf.data.table_described import described
from mlhf.data.table_report import report


def describe(params: TableParams, root: Path | None) -> DataInfo:
    """Read the table: categories are in no header."""
    return described(params, _file(root)).info


def validate(params: TableParams, root: Path | None) -> DataInfo:
    """Read the table and check every value, a column at a time."""
    return inspect(params, root).info


def inspect(params: TableParams, root: Path | None, progress: Progress | None = None) -> Inspection:
    """Read the table, check every value, and report the columns."""
    found = described(params, _file(root))
    for column in found.columns:
        if column.categories is None:
            column.encode(found.table)
    return Inspection(found.info, report(params, found, _file(root)))


def read(params: TableParams, root: Path | None) -> Arrays:
    """Return inputs (N, F) and targets."""
    found = described(params, _file(root))
    rows = found.table.num_rows
    inputs = np.empty((rows, found.info.input_shape[0]))
    at = 0
    for column in found.columns:
        inputs[:, at : at + column.width] = column.encode(found.table)
        at += column.width
    targets = found.targets.values
    train, test = held_out(rows, params.test_fraction)
    train = train[subset_indices(len(train), params.train_samples, "train_samples")]
    test = test[subset_indices(len(test), params.test_samples, "test_samples")]
    weights = found.weights

    def split(chosen: Array) -> Split:
        own = None if weights is None else weights[chosen]
        return Split(inputs[chosen], targets[chosen], own)

    return Arrays(
        found.info,
        split(train),
        split(test),
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
