"""A table as a data set: which columns are inputs, and what is to be predicted."""

from dataclasses import dataclass
from pathlib import Path

from mlhf.core.errors import DataError, SpecError
from mlhf.core.explain import unknown
from mlhf.core.optional import from_extra
from mlhf.data import files
from mlhf.data.arrays import Array, checked_weights, held_out, held_out_count, subset_size
from mlhf.data.info import DataInfo
from mlhf.data.params import TableParams
from mlhf.data.table_columns import Column, complete, input_column, is_number, numbers
from mlhf.data.table_targets import Targets, targets_of
from mlhf.data.table_types import Typed, typed_table, value_type

with from_extra("data"):
    import pyarrow as pa

_MAX_FEATURES = 65_536


@dataclass(frozen=True)
class Described:
    """A table as it is used: its input columns, its targets, and what they add up to."""

    info: DataInfo
    columns: tuple[Column, ...]
    targets: Targets
    typed: Typed
    weights: Array | None = None

    @property
    def table(self) -> pa.Table:
        return self.typed.table


def described(params: TableParams, path: Path) -> Described:
    """Read a table. Raises DataError or SpecError where it cannot be used."""
    typed = typed_table(path, params)
    table = typed.table
    names = table.column_names
    weights = _weights(params, typed)
    taken = {*params.targets, params.sample_weights}
    used = [name for name in names if name not in taken and name in typed.types]
    if not used:
        hint = ""
        if typed.row_numbers:
            hint = f" and row numbers in {typed.row_numbers[0]!r}; set `row_numbers` to use"
        raise DataError(f"the table has no input columns beside the target{hint}")
    test = held_out_count(table.num_rows, params.test_fraction)
    for name in (*params.targets, *used):
        if not typed.types[name].missing:
            complete(table, name)
    train, _ = held_out(table.num_rows, params.test_fraction)
    columns = tuple(input_column(typed, name, train) for name in used)
    features = sum(column.width for column in columns)
    if features > _MAX_FEATURES:
        raise DataError(f"the columns give {features} inputs; at most {_MAX_FEATURES} are taken")
    files.check_held(table.num_rows, 8 * features, "/params/ignore")
    targets = targets_of(params, typed)
    info = DataInfo(
        kind="table",
        input_shape=(features,),
        outputs=targets.outputs,
        task=targets.task,
        train_samples=subset_size(table.num_rows - test, params.train_samples, "train_samples"),
        test_samples=subset_size(test, params.test_samples, "test_samples"),
        class_names=targets.names,
        weighted=weights is not None,
        least=float(targets.values.min()) if targets.task == "regression" else None,
    )
    return Described(info, columns, targets, typed, weights)


def _weights(params: TableParams, typed: Typed) -> Array | None:
    name, place = params.sample_weights, "/params/sample_weights"
    if name is None:
        return None
    if name in params.targets:
        raise SpecError(place, f"{name!r} is a column to predict")
    if name not in typed.types:
        raise SpecError(place, unknown("column", name, typed.table.column_names))
    if not is_number(value_type(typed.table, name)):
        raise SpecError(place, f"column {name!r} holds no numbers")
    return checked_weights(numbers(typed.table, name), f"column {name!r}")
