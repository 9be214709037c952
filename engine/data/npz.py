"""NumPy arrays in an .npz file. Pickles are never loaded; headers are checked before arrays."""

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from engine.data import files
from engine.data.arrays import (
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
from engine.data.info import DataInfo, Task
from engine.data.params import NpzParams
from engine.errors import DataError, SpecError

_CHUNK_BYTES = 16 * 2**20
_MAX_AXIS = 65_536


@dataclass(frozen=True)
class _Member:
    """One array of the file: its header."""

    file: Path
    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    fortran: bool

    @property
    def where(self) -> str:
        return f"{self.file.name}, {self.name}"

    def chunks(self) -> Iterator[Array]:
        """Yield the rows a few at a time (a Fortran-ordered array at once)."""
        row = self.dtype.itemsize * math.prod(self.shape[1:])
        rows = self.shape[0] if self.fortran else max(1, _CHUNK_BYTES // max(row, 1))
        with _reading(self.where), _stream(self.file, self.name) as stream:
            _header(stream)
            for start in range(0, self.shape[0], rows):
                count = min(rows, self.shape[0] - start)
                content = stream.read(count * row)
                if len(content) != count * row:
                    raise DataError(f"{self.where}: truncated")
                flat = np.frombuffer(content, self.dtype)
                shape = (count, *self.shape[1:])
                yield flat.reshape(shape[::-1]).T if self.fortran else flat.reshape(shape)
            stream.read(1)  # at the end zipfile compares the checksum

    def load(self) -> Array:
        """Return the whole array."""
        return np.concatenate(list(self.chunks()))


@dataclass(frozen=True)
class _Members:
    """The arrays of both splits; ``test`` is None where it is to be split off."""

    train: tuple[_Member, _Member]
    test: tuple[_Member, _Member] | None


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


def _load(
    members: tuple[_Member, _Member], params: NpzParams, info: DataInfo
) -> tuple[Array, Array]:
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


def _targets(params: NpzParams, values: Array, y: _Member) -> tuple[Task, int]:
    """Return the task and the number of outputs."""
    whole = y.dtype.kind in "iub" and (values.ndim == 1 or values.shape[1:] == (1,))
    if params.task == "classification" or (params.task == "auto" and whole):
        labels = checked_labels(_squeezed(values), y.where)
        return "classification", class_count(labels, y.where)
    if values.ndim > 2 or y.shape[1:] == (0,):
        raise DataError(f"{y.where}: targets must be of shape (N,) or (N, K), not {y.shape}")
    return "regression", 1 if values.ndim == 1 else int(values.shape[1])


def _converted(values: Array, info: DataInfo, y: _Member) -> Array:
    """Return labels (N,) or targets (N, K) after checking their values."""
    if info.task == "classification":
        return checked_labels(_squeezed(values), y.where, info.outputs)
    check_finite(values, y.where)
    if values.size != len(values) * info.outputs:
        raise DataError(f"{y.where}: {y.shape} are not {info.outputs} targets a sample")
    return values.reshape(len(values), info.outputs).astype(np.float64)


def _squeezed(values: Array) -> Array:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _layout(x: _Member, params: NpzParams) -> tuple[str, tuple[int, ...], bool]:
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
    with _reading(path.name), zipfile.ZipFile(path) as archive:
        entries = {info.filename: info for info in archive.infolist()}
    names = {name.removesuffix(".npy") for name in entries if name.endswith(".npy")}

    def pair(x: str, y: str) -> tuple[_Member, _Member]:
        members = tuple(_member(path, entries[f"{name}.npy"]) for name in (x, y))
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


def _checked(x: _Member, y: _Member) -> tuple[_Member, _Member]:
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


def _member(path: Path, entry: zipfile.ZipInfo) -> _Member:
    """Read one array's header. Raises DataError for objects, other types, or a wrong size."""
    name = entry.filename.removesuffix(".npy")
    where = f"{path.name}, {name}"
    with _reading(where), _stream(path, name) as stream:
        shape, fortran, dtype = _header(stream)
        offset = stream.tell()
    if dtype.hasobject:
        raise DataError(f"{where}: holds Python objects (a pickle), which are never loaded")
    if dtype.kind not in "iufb" or dtype.itemsize > 8:
        raise DataError(f"{where}: values of type {dtype} are not numbers of at most 8 bytes")
    wrong = entry.file_size - offset != math.prod(shape) * dtype.itemsize
    if wrong or any(n < 0 for n in shape):
        raise DataError(f"{where}: truncated, or its header is wrong: it promises {shape}")
    return _Member(path, name, shape, dtype, fortran)


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = npy.read_magic(stream)
    read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, fortran, dtype = read(stream)
    return tuple(int(n) for n in shape), fortran, dtype


@contextmanager
def _stream(path: Path, name: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(path) as archive, archive.open(f"{name}.npy") as stream:
        yield stream


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turn the errors of a broken archive into DataError."""
    try:
        yield
    except (DataError, SpecError):
        raise
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        KeyError,
        NotImplementedError,
        RuntimeError,
    ) as error:
        raise DataError(f"{where}: not a readable .npz file: {str(error)[:200]}") from None
