"""Uploaded images in Parquet files: a column of images, a column of labels."""

from functools import partial
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    checked_labels,
    chosen,
    class_count,
    counted,
    held_out,
    held_out_count,
)
from mlhf.data.files import parquet_files
from mlhf.data.image_decoder import decode
from mlhf.data.images import collect
from mlhf.data.info import DataInfo
from mlhf.data.params import HfImagesParams
from mlhf.data.parquet_images import ParquetImages

_TEST = ("test", "validation", "val")


def describe(params: HfImagesParams, root: Path | None) -> DataInfo:
    """Read metadata and the labels, no images."""
    train, test = _open(params, root)
    labels = checked_labels(train.labels(), train.files[0].name)
    classes = len(train.class_names or ()) or class_count(labels, train.files[0].name)
    if test is None:
        test_count = held_out_count(train.count, params.test_fraction)
        train_count = train.count - test_count
    else:
        train_count, test_count = train.count, test.count
    info = DataInfo(
        kind="image",
        input_shape=(params.channels, params.size, params.size),
        outputs=classes,
        task="classification",
        train_samples=counted(train_count, params.train_samples, "train_samples"),
        test_samples=counted(test_count, params.test_samples, "test_samples"),
        class_names=train.class_names,
    )
    total = info.train_samples + info.test_samples
    files.check_held(total, params.channels * params.size**2, "/params/size")
    return info


def validate(params: HfImagesParams, root: Path | None) -> DataInfo:
    """Decode every image once, keeping none."""
    info = describe(params, root)
    train, test = _open(params, root)
    class_count(train.labels(), train.files[0].name)
    for source in (train, test):
        if source is not None:
            checked_labels(source.labels(), source.files[0].name, info.outputs)
            for _ in source.decoded(np.arange(source.count), _decoder(params)):
                pass
    return info


def read(params: HfImagesParams, root: Path | None) -> Arrays:
    """Return images and labels."""
    info = describe(params, root)
    train, test = _open(params, root)
    if test is None:
        train_rows, test_rows = held_out(train.count, params.test_fraction)
    else:
        train_rows, test_rows = np.arange(train.count), np.arange(test.count)
    train_rows = train_rows[chosen(len(train_rows), params.train_samples, "train_samples")]
    test_rows = test_rows[chosen(len(test_rows), params.test_samples, "test_samples")]
    return Arrays(
        info,
        _read(train, train_rows, params, info),
        _read(test or train, test_rows, params, info),
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of the files."""
    folder = files.need_root(root)
    return files.digest(_train_files(folder) + parquet_files(folder, *_TEST), folder)


def _read(source: ParquetImages, rows: Array, params: HfImagesParams, info: DataInfo) -> Split:
    labels = checked_labels(source.labels(), source.files[0].name, info.outputs)
    stacks = source.decoded(rows, _decoder(params))
    return Split(collect(stacks, len(rows), info.input_shape), labels[rows])


def _decoder(params: HfImagesParams) -> partial[Array]:
    return partial(decode, channels=params.channels, size=params.size)


def _open(params: HfImagesParams, root: Path | None) -> tuple[ParquetImages, ParquetImages | None]:
    folder = files.need_root(root)
    train = ParquetImages.open(_train_files(folder), params.image_column, params.label_column)
    test = parquet_files(folder, *_TEST)
    if not test:
        return train, None
    return train, ParquetImages.open(test, train.image, train.label)


def _train_files(folder: Path) -> list[Path]:
    """Return the files of the train split: any Parquet file, where none is named so."""
    if folder.is_file():
        return [folder]
    test = set(parquet_files(folder, *_TEST))
    found = parquet_files(folder, "train") or [
        path for path in parquet_files(folder, "") if path not in test
    ]
    if not found:
        raise DataError("no Parquet file for training: name them train-*.parquet")
    return found
