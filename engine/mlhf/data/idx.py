"""IDX files (MNIST's format), plain or gzipped."""

import gzip
import math
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    checked_labels,
    part_indices,
    subset_indices,
    subset_size,
)
from mlhf.data.images import half_size
from mlhf.data.info import DataInfo
from mlhf.data.params import MnistParams

_SIDE, _CLASSES = 28, 10
_PREFIXES = {"train": "train", "test": "t10k"}
# zlib packs at most 1032 bytes into one; a header that promises more lies.
_MAX_RATIO = 1032


@dataclass(frozen=True)
class IdxSet:
    """The two files of one split, headers checked."""

    images: Path
    labels: Path
    count: int


def find(root: Path, split: str) -> IdxSet:
    """Return the files of a split. Raises DataError unless both are there and fit together."""
    prefix = _PREFIXES[split]
    images, labels = _find(root, f"{prefix}-images", 3), _find(root, f"{prefix}-labels", 1)
    count, *sides = _header(images, 3)
    (label_count,) = _header(labels, 1)
    if sides != [_SIDE, _SIDE]:
        raise DataError(f"{images.name}: images are {sides}, not 28x28")
    if count != label_count:
        raise DataError(f"{images.name} holds {count} images, {labels.name} {label_count} labels")
    if count == 0:
        raise DataError(f"{images.name}: no images")
    return IdxSet(images, labels, count)


def present(root: Path) -> bool:
    """Return whether the folder holds a training set."""
    try:
        _find(root, "train-images", 3)
    except DataError:
        return False
    return True


def describe(params: MnistParams, root: Path, names: tuple[str, ...]) -> DataInfo:
    """Read the headers."""
    train = len(part_indices(params.split, find(root, "train").count))
    return DataInfo(
        kind="image",
        input_shape=(1, params.size, params.size),
        outputs=_CLASSES,
        task="classification",
        train_samples=subset_size(train, params.train_samples, "train_samples"),
        test_samples=subset_size(find(root, "test").count, params.test_samples, "test_samples"),
        class_names=names,
    )


def read(params: MnistParams, root: Path, names: tuple[str, ...]) -> Arrays:
    """Read all of it: a training set takes 47 MB."""
    info = describe(params, root, names)
    splits = {}
    for name, wanted in (("train", params.train_samples), ("test", params.test_samples)):
        found = find(root, name)
        rows = part_indices(params.split if name == "train" else "all", found.count)
        rows = rows[subset_indices(len(rows), wanted, f"{name}_samples")]
        images = read_array(found.images, 3)[rows, None]
        labels = checked_labels(read_array(found.labels, 1), found.labels.name, _CLASSES)[rows]
        splits[name] = Split(images if params.size == _SIDE else half_size(images), labels)
    return Arrays(info, splits["train"], splits["test"])


def digest(root: Path) -> str:
    """Return the sha256 of the four files."""
    sets = find(root, "train"), find(root, "test")
    return files.digest([p for found in sets for p in (found.images, found.labels)], root)


def read_array(path: Path, axes: int) -> Array:
    """Return the content of an IDX file of unsigned bytes with this many axes."""
    shape = _header(path, axes)
    size = math.prod(shape)
    with _open(path) as file:
        file.read(4 + 4 * axes)
        # One byte more than promised shows whether the file goes on.
        content = file.read(size + 1)
    if len(content) != size:
        raise DataError(
            f"{path.name}: {'truncated' if len(content) < size else 'longer than its header says'}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def _header(path: Path, axes: int) -> list[int]:
    """Return the shape that the header promises."""
    with _open(path) as file:
        head = file.read(4 + 4 * axes)
    if len(head) < 4 + 4 * axes or head[:4] != bytes((0, 0, 8, axes)):
        raise DataError(f"{path.name}: not an IDX file of unsigned bytes with {axes} axes")
    shape = [int(n) for n in np.frombuffer(head, ">u4", offset=4)]
    size, stored = math.prod(shape), path.stat().st_size
    gzipped = path.suffix == ".gz"
    if size > min(stored * (_MAX_RATIO if gzipped else 1), files.MAX_HELD_BYTES):
        raise DataError(f"{path.name}: truncated, or its header is wrong: it promises {shape}")
    return shape


@contextmanager
def _open(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as stored:
            yield cast(IO[bytes], gzip.GzipFile(fileobj=stored)) if path.suffix == ".gz" else stored
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise DataError(f"{path.name}: broken gzip file: {error}") from None
    except OSError as error:
        raise DataError(f"{path.name}: cannot be read: {error.strerror or error}") from None


def _find(root: Path, name: str, axes: int) -> Path:
    for separator in "-.":
        for suffix in ("", ".gz"):
            path = root / f"{name}{separator}idx{axes}-ubyte{suffix}"
            if path.is_file():
                return path
    raise DataError(f"{name}-idx{axes}-ubyte (or .gz) is not in the folder of the data set")
