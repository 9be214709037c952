"""NumPy arrays in an .npz file. Pickles are never loaded; headers are checked before arrays."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    check_finite,
    checked_labels,
    chosen,
    class_count,
    counted,
    held_out,
    held_out_count,
)
from mlhf.data.info import DataInfo, Task
from mlhf.data.npz_file import Member, listed, member
from mlhf.data.params import NpzParams

_MAX_AXIS = 65_536


@dataclass(frozen=True)
class _Members:
    """The arrays of both splits; ``test`` is None where it is to be split off."""

    train: tuple[Member, Member]
    test: tuple[Member, Member] | None


def describe(params: NpzParams, root: Path | None) -> DataInfo:
    """Read headers, and the targets."""
    members = _open(root)
    (x, y), test = members.train, members.test
    kind, shape, _ = _layout(x, params)
    task, outputs = _targets(params, y.load(), y)
    if test is None:
        test_count = held_out_count(x.shape[0], params.test_fraction)
        train_count = x.shape[0] - test_count
    else:
        train_count, test_count = x.shape[0], test[0].shape[0]
    return DataInfo(
        kind="table" if kind == "table" else "image",
        input_shape=shape,
        outputs=outputs,
        task=task,
        train_samples=counted(train_count, params.train_samples, "train_samples"),
        test_samples=counted(test_count, params.test_samples, "test_samples"),
    )


def validate(params: NpzParams, root: Path | None) -> DataInfo:
    """Read everything, a few rows at a time."""
    info = describe(params, root)
    members = _open(root)
    for x, y in filter(None, (members.train, members.test)):
        for chunk in x.chunks():
            check_finite(chunk, x.where)
        _converted(y.load(), info, y)
    return info


def read(params: NpzParams, root: Path | None) -> Arrays:
    """Return inputs and targets."""
    info = describe(params, root)
    members = _open(root)
    train = _load(members.train, params, info)
    if members.test is not None:
        test = _load(members.test, params, info)
    else:
        rows, test_rows = held_out(members.train[0].shape[0], params.test_fraction)
        x, y = train
        train, test = (x[rows], y[rows]), (x[test_rows], y[test_rows])
    return Arrays(
        info,
        _split(train, chosen(len(train[0]), params.train_samples, "train_samples")),
        _split(test, chosen(len(test[0]), params.test_samples, "test_samples")),
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of the file."""
    path = files.only_file(root, (".npz",))
    return files.digest([path], path)


def _split(arrays: tuple[Array, Array], rows: Array) -> Split:
    x, y = arrays
    return Split(x, y) if len(rows) == len(x) else Split(x[rows], y[rows])


def _load(members: tuple[Member, Member], params: NpzParams, info: DataInfo) -> tuple[Array, Array]:
    """Return the inputs as (N, C, H, W) or (N, F), and the targets."""
    x, y = members
    _, shape, hwc = _layout(x, params)
    inputs = x.load()
    check_finite(inputs, x.where)
    if hwc:
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    if inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float64 if info.kind == "table" else np.float32)
    elif info.kind == "table":
        inputs = inputs.astype(np.float64)
    return inputs.reshape(-1, *shape), _converted(y.load(), info, y)


def _targets(params: NpzParams, values: Array, y: Member) -> tuple[Task, int]:
    """Return the task and the number of outputs."""
    whole = y.dtype.kind in "iub" and (values.ndim == 1 or values.shape[1:] == (1,))
    if params.task == "classification" or (params.task == "auto" and whole):
        labels = checked_labels(_squeezed(values), y.where)
        return "classification", class_count(labels, y.where)
    if values.ndim > 2 or y.shape[1:] == (0,):
        raise DataError(f"{y.where}: targets must be of shape (N,) or (N, K), not {y.shape}")
    return "regression", 1 if values.ndim == 1 else int(values.shape[1])


def _converted(values: Array, info: DataInfo, y: Member) -> Array:
    """Return labels (N,) or targets (N, K) after checking their values."""
    if info.task == "classification":
        return checked_labels(_squeezed(values), y.where, info.outputs)
    check_finite(values, y.where)
    if values.size != len(values) * info.outputs:
        raise DataError(f"{y.where}: {y.shape} are not {info.outputs} targets a sample")
    return values.reshape(len(values), info.outputs).astype(np.float64)


def _squeezed(values: Array) -> Array:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _layout(x: Member, params: NpzParams) -> tuple[str, tuple[int, ...], bool]:
    """Return the kind, the shape of one input, and whether channels come last."""
    sizes = x.shape[1:]
    if len(sizes) == 1:
        return "table", sizes, False
    if len(sizes) == 2:
        return "image", (1, *sizes), False
    if len(sizes) != 3:
        raise DataError(
            f"{x.where}: shape {x.shape} is neither a table (N, F) nor images (N, H, W), "
            "(N, C, H, W) or (N, H, W, C)"
        )
    usual = (1, 3, 4)
    hwc = params.layout == "hwc" or (
        params.layout == "auto" and sizes[2] in usual and sizes[0] not in usual
    )
    return "image", (sizes[2], *sizes[:2]) if hwc else sizes, hwc


def _open(root: Path | None) -> _Members:
    """Read the headers of all arrays, and check that they fit together."""
    path = files.only_file(root, (".npz",))
    entries = listed(path)
    names = {name.removesuffix(".npy") for name in entries if name.endswith(".npy")}

    def pair(x: str, y: str) -> tuple[Member, Member]:
        members = tuple(member(path, entries[f"{name}.npy"]) for name in (x, y))
        return _checked(*members)

    if {"x_train", "y_train"} <= names:
        train, whole = pair("x_train", "y_train"), {"x_test", "y_test"} <= names
        test = pair("x_test", "y_test") if whole else None
        if test and (test[0].shape[1:], test[1].shape[1:]) != (
            train[0].shape[1:],
            train[1].shape[1:],
        ):
            raise DataError(f"{path.name}: train and test arrays differ in shape")
        if len({"x_test", "y_test"} & names) == 1:
            raise DataError(f"{path.name}: has only one of x_test and y_test")
    elif {"x", "y"} <= names:
        train, test = pair("x", "y"), None
    else:
        raise DataError(
            f"{path.name}: needs arrays x_train and y_train (and x_test, y_test), or x and y; "
            f"it has: {', '.join(sorted(names))[:500] or 'none'}"
        )
    held = [member for members in (train, test) if members for member in members]
    total = sum(math.prod(m.shape) * max(m.dtype.itemsize, 4) for m in held)
    if total > files.MAX_HELD_BYTES:
        raise DataError(
            f"{path.name}: its arrays take {total / 2**30:.1f} GiB; at most "
            f"{files.MAX_HELD_BYTES // 2**30} GiB are read"
        )
    return _Members(train, test)


def _checked(x: Member, y: Member) -> tuple[Member, Member]:
    """Check one split's shapes."""
    if len(x.shape) < 2 or len(y.shape) < 1:
        raise DataError(f"{x.where}: inputs need at least 2 axes, targets 1")
    if x.shape[0] != y.shape[0]:
        raise DataError(f"{x.where} has {x.shape[0]} rows, but {y.name} has {y.shape[0]}")
    if 0 in x.shape:
        raise DataError(f"{x.where}: empty, of shape {x.shape}")
    if max(x.shape[1:]) > _MAX_AXIS:
        raise DataError(f"{x.where}: shape {x.shape} has an axis above {_MAX_AXIS}")
    return x, y
