"""Raw inputs of a trained model as arrays: images and rows as the uploaded files hold them."""

import math
from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data.arrays import Array
from mlhf.data.table_numbers import MISSING, NumberFormat


def images(inputs: Any, shape: tuple[int, int, int], preprocessing: Mapping[str, Any]) -> Any:
    """Return images as (B, C, H, W).

    Args:
        inputs: Arrays (B, C, H, W), (B, H, W, C) or, of one channel, (B, H, W); the same
            without B for one image; encoded images (bytes), their paths, or Pillow's images,
            one or a sequence: those are decoded as the training data was.
        shape: (C, H, W), what the model takes.

    Returns:
        The array, of whatever shape it is where that fits none of these.
    """
    if _is_encoded(inputs):
        inputs = [inputs]
    if isinstance(inputs, Sequence) and inputs and all(map(_is_encoded, inputs)):
        return _decoded(inputs, shape, preprocessing)
    if not hasattr(inputs, "shape"):
        inputs = np.asarray(inputs)
    channels, height, width = shape
    layouts: list[tuple[tuple[int, ...], bool]] = [
        (shape, False),
        ((height, width, channels), True),
    ]
    if channels == 1:
        layouts.append(((height, width), False))
    found = tuple(inputs.shape)
    for layout, last in layouts:
        if found == layout or found[1:] == layout:
            batch = inputs.reshape(-1, *layout)
            if last:
                return batch.swapaxes(2, 3).swapaxes(1, 2)
            return batch.reshape(-1, *shape)
    return inputs


def _is_encoded(value: Any) -> bool:
    return isinstance(value, bytes | str | Path) or type(value).__module__.startswith("PIL.")


def _decoded(
    items: Sequence[Any], shape: tuple[int, int, int], preprocessing: Mapping[str, Any]
) -> Array:
    from mlhf.data.image_decoder import decode

    background, rules = preprocessing.get("background", "white"), preprocessing.get("rules", 1)
    result = np.empty((len(items), *shape), np.uint8)
    for at, item in enumerate(items):
        where = str(item) if isinstance(item, str | Path) else f"image {at}"
        source = Path(item) if isinstance(item, str) else item
        if not isinstance(source, bytes | Path):
            buffer = BytesIO()
            (item.convert("RGB") if item.mode == "CMYK" else item).save(buffer, "PNG")
            source = buffer.getvalue()
        stretch = bool(preprocessing.get("stretch"))
        result[at] = decode(source, where, shape[0], shape[1:], background, rules, stretch=stretch)
    return result


def rows(inputs: Any, columns: Sequence[Mapping[str, Any]] | None) -> Any:
    """Encode the rows of a table as (B, F) float64; what is an array already passes through.

    Args:
        inputs: A DataFrame, a mapping from column names to values or a sequence of them, or a
            sequence of rows, each with the input columns in order. Values may be texts as in
            the CSV file.
        columns: The input columns, as the training data notes them; None if it was an array.

    Raises:
        DataError: A column or value is missing, or a value is not what the column holds.
    """
    if hasattr(inputs, "to_dict") and hasattr(inputs, "columns"):
        inputs = inputs.to_dict("records")
    if isinstance(inputs, Mapping):
        inputs = [inputs]
    if not isinstance(inputs, Sequence) or not inputs:
        return inputs
    if isinstance(inputs[0], Mapping):
        if columns is None:
            raise DataError("the model was trained on arrays, which have no column names")
        return np.array([_row(row, columns) for row in inputs], np.float64)
    if columns is None or not _are_raw(inputs, columns):
        return inputs
    names = [column["name"] for column in columns]
    for number, row in enumerate(inputs, 1):
        if len(row) != len(names):
            raise DataError(f"row {number} has {len(row)} values; needed: {', '.join(names)[:500]}")
    encoded = [_row(dict(zip(names, row, strict=True)), columns) for row in inputs]
    return np.array(encoded, np.float64)


def _are_raw(inputs: Sequence[Any], columns: Sequence[Mapping[str, Any]]) -> bool:
    """Whether rows hold a value for each column, rather than for each input."""
    row = inputs[0]
    if not isinstance(row, Sequence) or isinstance(row, str):
        return False
    return len(row) == len(columns) or any(
        isinstance(cell, str) for each in inputs for cell in each
    )


def _row(row: Mapping[str, Any], columns: Sequence[Mapping[str, Any]]) -> list[float]:
    values: list[float] = []
    for column in columns:
        name, categories = column["name"], column["categories"]
        if name not in row:
            raise DataError(f"a row lacks the column {name!r}")
        value = row[name]
        if categories is None:
            values.append(_number(value, column))
            continue
        if value not in categories and str(value) in categories:
            value = str(value)
        if value not in categories and not (column.get("missing") and _is_missing(value)):
            raise DataError(f"column {name!r}: unknown category {value!r}")
        values += [float(value == each) for each in categories]
    return values


def _number(value: Any, column: Mapping[str, Any]) -> float:
    name = column["name"]
    if _is_missing(value):
        if column.get("fill") is None:
            raise DataError(
                f"column {name!r}: the value {value!r} is missing, and the training data had no "
                "missing values"
            )
        return float(column["fill"])
    try:
        if isinstance(value, str) and column.get("format"):
            return NumberFormat(**column["format"]).parse(value)
        return float(value)
    except (TypeError, ValueError):
        raise DataError(f"column {name!r}: {value!r} is not a number") from None


def _is_missing(value: Any) -> bool:
    if isinstance(value, str):
        return value.strip().casefold() in MISSING
    return value is None or (isinstance(value, float) and math.isnan(value))
