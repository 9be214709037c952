"""Means and deviations of the training split, as JSON values. NumPy only."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from mlhf.data.arrays import (
    Array,
    Arrays,
    Lazy,
    fixed_order,
)
from mlhf.data.info import DataInfo

# How many lazily decoded images the means are taken from.
_SAMPLE = 2048
_BLOCK_VALUES = 2**22


def fit(arrays: Arrays, raw_targets: Collection[str] = ()) -> dict[str, Any]:
    """Return what has to be done to raw inputs before a model sees them.

    Images: ``mean`` and ``std`` of each channel, in the units of the raw pixels. Tables: of
    each input, sequences of each number of a step. Regression adds ``target_mean`` and
    ``target_std``, of several heads below ``targets``; inputs of text have only their notes.

    Args:
        arrays: The data set.
        raw_targets: Heads whose targets stay in their own units, such as counts; a single target
            has the name ``""``.
    """
    result: dict[str, Any] = {"kind": arrays.info.kind, **arrays.notes}
    if arrays.info.kind != "text":
        result |= _of_inputs(arrays)
    targets = arrays.train.targets
    if not isinstance(targets, dict):
        if arrays.info.task == "regression":
            result |= _of_targets(targets, arrays.info, "" in raw_targets)
        return result
    result["targets"] = {
        name: _of_targets(targets[name], arrays.info, name in raw_targets)
        for name, head in arrays.info.heads.items()
        if head.task == "regression"
    }
    return result


def _of_inputs(arrays: Arrays) -> dict[str, Any]:
    inputs = arrays.train.inputs
    if isinstance(inputs, Lazy):
        inputs = inputs.get(np.sort(fixed_order(inputs.length)[:_SAMPLE]))
    if arrays.info.kind == "sequence":
        assert not isinstance(inputs, Lazy)
        inputs = inputs.reshape(-1, inputs.shape[-1])
    mean, std = _moments(inputs)
    if arrays.scaled is not None:
        mean, std = np.where(arrays.scaled, mean, 0.0), np.where(arrays.scaled, std, 1.0)
    return {"mean": mean.tolist(), "std": std.tolist()}


def _of_targets(targets: Array, info: DataInfo, raw: bool) -> dict[str, Any]:
    steps = info.kind != "image" and targets.ndim > 2
    mean, std = _moments(targets.reshape(-1, targets.shape[-1]) if steps else targets)
    if raw:
        mean, std = np.zeros_like(mean), np.ones_like(std)
    return {"target_mean": mean.tolist(), "target_std": std.tolist()}


def scaled_steps(values: Array, mean: Array, std: Array, dtype: str = "float32") -> Array:
    """Return ``standardised`` values of sequences (N, T, F), over their last axis."""
    flat = standardised(values.reshape(-1, values.shape[-1]), mean, std, dtype)
    return flat.reshape(values.shape)


def standardised(values: Array, mean: Array, std: Array, dtype: str = "float32") -> Array:
    """Return (values − mean) / std over axis 1, in a dtype; the difference is taken in float64."""
    result = np.empty(values.shape, dtype)
    column = (-1, *(1,) * (values.ndim - 2))
    rows = _block_rows(values)
    for start in range(0, len(values), rows):
        block = values[start : start + rows] - mean.reshape(column)
        result[start : start + rows] = block / std.reshape(column)
    return result


def _moments(values: Array) -> tuple[Array, Array]:
    """Return mean and deviation of axis 1 (of each channel or column), in float64.

    A constant channel or column gets deviation 1.
    """
    if values.dtype == np.uint8:
        return _byte_moments(values)
    axes = (0, *range(2, values.ndim))
    count = values.size // values.shape[1]
    mean = sum(block.sum(axes, dtype=np.float64) for block in _blocks(values)) / count
    spread = sum(
        np.square(block - mean.reshape(-1, *(1,) * (values.ndim - 2))).sum(axes)
        for block in _blocks(values)
    )
    std = np.sqrt(spread / count)
    # Rounding leaves a constant column with a deviation of about 1e-16 of its size.
    return mean, np.where(std > 1e-12 * np.maximum(np.abs(mean), 1e-30), std, 1.0)


def _byte_moments(values: Array) -> tuple[Array, Array]:
    """Return the same for bytes, exactly, from how often each occurs: ten times as fast."""
    counts = np.zeros((values.shape[1], 256), np.int64)
    for block in _blocks(values):
        for channel in range(values.shape[1]):
            counts[channel] += np.bincount(block[:, channel].ravel(), minlength=256)
    parts = counts / counts.sum(1, keepdims=True)
    mean = parts @ np.arange(256.0)
    std = np.sqrt((parts * np.square(np.arange(256) - mean[:, None])).sum(1))
    return mean, np.where(std > 0, std, 1.0)


def _blocks(values: Array) -> Iterator[Array]:
    rows = _block_rows(values)
    return (values[start : start + rows] for start in range(0, len(values), rows))


def _block_rows(values: Array) -> int:
    """Return how many rows may be copied to float64 at a time."""
    return max(1, _BLOCK_VALUES // int(values[0].size))
