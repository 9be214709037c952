"""What a table's target columns are to be learned as: classes, labels, or numbers."""

from dataclasses import dataclass

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.core.optional import from_extra
from mlhf.data.arrays import MAX_CLASSES, Array
from mlhf.data.info import Task
from mlhf.data.params import TableParams
from mlhf.data.table_columns import alternative, coded, complete, is_number, numbers
from mlhf.data.table_types import Typed, is_text, value_type

with from_extra("data"):
    import pyarrow as pa
    import pyarrow.compute as pc

_FEW = 20


@dataclass(frozen=True)
class Targets:
    """The targets of all rows.

    Attributes:
        names: Of the classes, or of the labels of a multi-label task.
        values: Classes (N,) int64; labels (N, K) float32 of 0 and 1; or numbers (N, K) float64.
        why: What the task follows from.
    """

    task: Task
    outputs: int
    names: tuple[str, ...] | None
    values: Array
    why: str


def targets_of(params: TableParams, typed: Typed) -> Targets:
    """Return the targets.

    Raises:
        DataError: A value is missing or not finite, or all rows are of one class.
        SpecError: The columns do not hold what `task` needs.
    """
    if isinstance(params.target, str):
        return _one(params, typed, params.target)
    return _several(params, typed, params.target)


def _one(params: TableParams, typed: Typed, name: str) -> Targets:
    table = typed.table
    kind = value_type(table, name)
    why = f"`task` is {params.task}"
    if params.task == "multilabel":
        raise SpecError(
            "/params/task",
            "several labels a sample are several columns of 0 and 1: name them all in `target`, "
            'as ["first", "second"]',
        )
    classes = params.task == "classification"
    if params.task == "auto":
        classes, why = is_text(kind) or bool(pa.types.is_boolean(kind)), "classes"
        if pa.types.is_integer(kind):
            classes = len(pc.unique(complete(table, name))) <= _FEW
            why = f"classes, as there are at most {_FEW} different ones (`task` changes that)"
    if not classes:
        if not is_number(kind):
            raise _no_numbers(typed, name, "/params/target")
        why = why if params.task != "auto" else "a regression target"
        return Targets("regression", 1, None, numbers(table, name)[:, None], why)
    names, labels = _classes(typed, name)
    if len(names) < 2:
        raise DataError(f"column {name!r}: all rows are of the same class")
    if len(names) > MAX_CLASSES:
        raise DataError(
            f"column {name!r}: {len(names)} classes; at most {MAX_CLASSES}"
            f"{alternative(typed, name)}"
        )
    return Targets("classification", len(names), names, labels, why)


def _several(params: TableParams, typed: Typed, names: list[str]) -> Targets:
    table = typed.table
    for at, name in enumerate(names):
        if not is_number(value_type(table, name)):
            raise _no_numbers(typed, name, f"/params/target/{at}")
    values = np.stack([numbers(table, name) for name in names], 1)
    yes_or_no = bool(np.isin(values, (0, 1)).all())
    one_hot = yes_or_no and len(names) > 1 and bool((values.sum(1) == 1).all())
    task, why = params.task, f"`task` is {params.task}"
    if task == "auto":
        if one_hot:
            task, why = "classification", "columns of which one is 1 in each row are classes"
        elif yes_or_no:
            task, why = "multilabel", "columns of 0 and 1 are labels of yes or no"
        else:
            task, why = "regression", "regression targets"
    if task == "regression":
        return Targets(task, len(names), None, values, why)
    if task == "multilabel" and yes_or_no:
        return Targets(task, len(names), tuple(names), values.astype(np.float32), why)
    if task == "classification" and one_hot:
        labels = values.argmax(1)
        if len(np.unique(labels)) < 2:
            raise DataError(f"columns {', '.join(names)[:200]}: all rows are of the same class")
        return Targets(task, len(names), tuple(names), labels, why)
    needed = "0 or 1" if task == "multilabel" else "0, with a single 1 in each row"
    raise SpecError("/params/task", f"for {task} the columns of `target` must hold {needed}")


def _no_numbers(typed: Typed, name: str, pointer: str) -> SpecError:
    kind = value_type(typed.table, name)
    return SpecError(
        pointer, f"column {name!r} holds {kind}, not numbers to predict{alternative(typed, name)}"
    )


def _classes(typed: Typed, name: str) -> tuple[tuple[str, ...], Array]:
    """Return the names of the classes in order of their values, and the labels."""
    table = typed.table
    kind = value_type(table, name)
    if is_text(kind):
        return coded(table, name)
    if not is_number(kind):
        raise SpecError("/params/target", f"column {name!r} holds neither text nor numbers")
    values, labels = np.unique(numbers(table, name), return_inverse=True)
    if pa.types.is_boolean(kind):
        names = tuple("true" if value else "false" for value in values)
    else:
        names = tuple(f"{value:.15g}" for value in values)
    return names, labels.astype(np.int64)
