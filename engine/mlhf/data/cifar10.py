"""CIFAR-10: the binary batches of its authors, or Parquet as on the Hugging Face Hub."""

from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    checked_labels,
    subset_indices,
    subset_size,
)
from mlhf.data.files import parquet_files
from mlhf.data.images import collect, half_size
from mlhf.data.info import DataInfo
from mlhf.data.params import Cifar10Params

_SIDE, _CLASSES = 32, 10
_SHAPE = (3, _SIDE, _SIDE)
_RECORD = 1 + 3 * _SIDE * _SIDE
_TRAIN, _META = 50_000, 30_000
_NAMES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)


class _Binary:
    """Records of one byte for the label and 3,072 for the image, in ``*.bin`` files."""

    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths
        for path in paths:
            if path.stat().st_size == 0 or path.stat().st_size % _RECORD:
                raise DataError(
                    f"{path.name}: truncated: its size is not a multiple of {_RECORD} bytes"
                )
        self.count = sum(path.stat().st_size for path in paths) // _RECORD
        files.check_held(self.count, _RECORD, "/params/train_samples")

    def read(self, rows: Array) -> tuple[Array, Array]:
        records = np.concatenate(
            [np.fromfile(p, np.uint8).reshape(-1, _RECORD) for p in self.paths]
        )
        labels = checked_labels(records[:, 0], self.paths[0].name, _CLASSES)
        return records[rows, 1:].reshape(-1, *_SHAPE), labels[rows]


class _Parquet:
    """Encoded images, of which only the wanted are decoded.

    Its readers are imported here, as binary batches need neither Arrow nor Pillow.
    """

    def __init__(self, paths: list[Path]) -> None:
        from mlhf.data.parquet_images import ParquetImages

        self.paths = paths
        self.images = ParquetImages.open(paths)
        self.count = self.images.count

    def read(self, rows: Array) -> tuple[Array, Array]:
        labels = checked_labels(self.images.labels(), self.paths[0].name, _CLASSES)[rows]
        return collect(self.images.decoded(rows, _decode), len(rows), _SHAPE), labels


def _decode(encoded: bytes, where: str) -> Array:
    from mlhf.data.image_decoder import decode

    image = decode(encoded, where, channels=3)
    if image.shape != _SHAPE:
        raise DataError(f"{where}: {image.shape[2]}x{image.shape[1]} pixels; CIFAR has 32x32")
    return image


def describe(params: Cifar10Params, root: Path | None) -> DataInfo:
    """Read file sizes or Parquet metadata."""
    train = _part(params, _open(root, "train").count)
    test = _open(root, "test").count
    return DataInfo(
        kind="image",
        input_shape=(3, params.size, params.size),
        outputs=_CLASSES,
        task="classification",
        train_samples=subset_size(len(train), params.train_samples, "train_samples"),
        test_samples=subset_size(test, params.test_samples, "test_samples"),
        class_names=_NAMES,
    )


def validate(params: Cifar10Params, root: Path | None) -> DataInfo:
    """Decode every image: 184 MB for the whole set."""
    read(params, root)
    return describe(params, root)


def read(params: Cifar10Params, root: Path | None) -> Arrays:
    """Return images and labels."""
    info = describe(params, root)
    train, test = _open(root, "train"), _open(root, "test")
    part = _part(params, train.count)
    rows = part[subset_indices(len(part), params.train_samples, "train_samples")]
    test_rows = subset_indices(test.count, params.test_samples, "test_samples")
    return Arrays(info, _split(train, rows, params.size), _split(test, test_rows, params.size))


def digest(root: Path | None) -> str:
    """Return the sha256 of the files."""
    folder = _folder(root)
    return files.digest([*_open(root, "train").paths, *_open(root, "test").paths], folder)


def _split(source: _Binary | _Parquet, rows: Array, size: int) -> Split:
    images, labels = source.read(rows)
    return Split(images if size == _SIDE else half_size(images), labels)


def _part(params: Cifar10Params, count: int) -> Array:
    """Return the rows of the part of the training set that ``split`` names."""
    if params.split == "all":
        return np.arange(count)
    if count != _TRAIN:
        raise DataError(f"split {params.split!r} needs all {_TRAIN} training images, not {count}")
    return np.arange(_META) if params.split == "meta" else np.arange(_META, _TRAIN)


def _folder(root: Path | None) -> Path:
    folder = files.need_root(root)
    inner = folder / "cifar-10-batches-bin"  # as the authors' archive unpacks
    return inner if inner.is_dir() else folder


def _open(root: Path | None, split: str) -> _Binary | _Parquet:
    folder = _folder(root)
    binary = sorted(folder.glob("data_batch_*.bin" if split == "train" else "test_batch.bin"))
    if binary:
        return _Binary(binary)
    parquet = parquet_files(folder, split)
    if parquet:
        return _Parquet(parquet)
    raise DataError(
        f"no {split} files of CIFAR-10: put data_batch_1.bin … data_batch_5.bin and "
        "test_batch.bin, or train-*.parquet and test-*.parquet, into the folder"
    )
