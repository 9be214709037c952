"""What is reported of a table: every column with its type and why, the classes, the sample."""

from pathlib import Path
from typing import Any, Literal

from mlhf.data.arrays import held_out
from mlhf.data.info import Task
from mlhf.data.params import TableParams
from mlhf.data.report import (
    SAMPLE_ROWS,
    ColumnReport,
    Report,
    SplitReport,
    class_reports,
    held_out_split,
    label_reports,
    listed,
)
from mlhf.data.table_columns import Column, nearly_unique
from mlhf.data.table_described import Described
from mlhf.data.table_file import is_parquet, read_dialect

MAX_COLUMNS_LISTED = 1000
_TARGET_TYPES: dict[Task, Literal["class", "boolean", "number"]] = {
    "classification": "class",
    "multilabel": "boolean",
    "regression": "number",
}


def report(params: TableParams, found: Described, path: Path) -> Report:
    """Report a table."""
    info, types = found.info, found.typed.types
    columns = {column.name: column for column in found.columns}
    report = Report(label=", ".join(params.targets), dropped_rows=found.typed.dropped)
    for name in found.table.column_names:
        if name not in types:
            continue
        kind = types[name]
        report.columns.append(_column(params, found, columns.get(name), name))
        if kind.format is not None:
            report.converted.append(f"{name}: numbers written with {kind.format}")
        if kind.doubt is not None:
            report.guessed.append(f"{name}: taken as texts; {kind.doubt}")
        if name in columns and (note := nearly_unique(columns[name], found.table)) is not None:
            report.guessed.append(note)
        if kind.missing:
            fill = columns[name].fill if name in columns else None
            if params.missing == "drop" or name in (*params.targets, params.sample_weights):
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
    ] + listed(
        (f"column {name}" for name in params.ignore if name not in params.targets), "columns"
    )
    train, test = held_out(found.table.num_rows, params.test_fraction)
    report.splits = [
        SplitReport(name="train", samples=len(train), source=path.name),
        SplitReport(name="test", samples=len(test), source=held_out_split(params.test_fraction)),
    ]
    targets, names = found.targets.values, found.targets.names
    if names is not None:
        count = label_reports if info.task == "multilabel" else class_reports
        report.classes = count(names, targets[train], targets[test])
    shown = found.table.slice(0, SAMPLE_ROWS).select([c.name for c in report.columns[:50]])
    report.sample = [{k: _shown(v) for k, v in row.items()} for row in shown.to_pylist()]
    return report


def _column(
    params: TableParams, found: Described, column: Column | None, name: str
) -> ColumnReport:
    kind = found.typed.types[name]
    if name in params.targets:
        return ColumnReport(
            name=name,
            role="target",
            type=_TARGET_TYPES[found.info.task],
            why=f"{kind.why}; {found.targets.why}",
            missing=kind.missing,
        )
    if name == params.sample_weights:
        why = "`sample_weights` names it: the samples' weights"
        return ColumnReport(name=name, role="weight", type="number", why=why, missing=kind.missing)
    assert column is not None, "a column that is used and no target is an input"
    return ColumnReport(
        name=name,
        role="input",
        type="number" if column.categories is None else "category",
        why=kind.why,
        inputs=column.width,
        missing=kind.missing,
    )


def _shown(value: Any) -> Any:
    return value if isinstance(value, int | float | None) else str(value)[:100]
