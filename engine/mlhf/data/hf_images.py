"""Uploaded images in Parquet files: a column of images, a column of labels."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data import files
from mlhf.data.arrays import Array, Arrays, Split, held_out, subset_indices, subset_size
from mlhf.data.files import parquet_files
from mlhf.data.image_size import Decoding, checked, conversions, decoding
from mlhf.data.images import collect
from mlhf.data.info import DataInfo
from mlhf.data.labels import Classes, classes_of
from mlhf.data.params import HfImagesParams
from mlhf.data.parquet_images import ParquetImages
from mlhf.data.report import (
    SAMPLE_ROWS,
    ColumnReport,
    Inspection,
    Progress,
    Report,
    SplitReport,
    class_reports,
    held_out_split,
)

_TEST = ("test", "validation", "val")
_SIDE = 32


@dataclass(frozen=True)
class _Opened:
    """Both splits, and the classes that their labels name."""

    train: ParquetImages
    test: ParquetImages | None
    train_labels: Array
    test_labels: Array
    classes: Classes

    def rows(self, params: HfImagesParams) -> tuple[Array, Array]:
        """Return the rows of train and test, before any subset is chosen."""
        if self.test is None:
            return held_out(self.train.count, params.test_fraction)
        return np.arange(self.train.count), np.arange(self.test.count)

    def encoded(self) -> Iterator[tuple[bytes, str]]:
        """Yield all images."""
        for source in (self.train, self.test):
            if source is not None:
                yield from source.encoded(np.arange(source.count))


def describe(params: HfImagesParams, root: Path | None) -> DataInfo:
    """Read metadata and the labels, and headers of the images where the size is not told."""
    opened = _open(params, root)
    return _info(params, opened, decoding(params, _SIDE, opened.encoded()))


def validate(params: HfImagesParams, root: Path | None) -> DataInfo:
    """Decode every image once, keeping none."""
    return inspect(params, root).info


def inspect(
    params: HfImagesParams, root: Path | None, progress: Progress | None = None
) -> Inspection:
    """Decode every image once, keeping none, and report the columns."""
    opened = _open(params, root)
    seen: list[str] = []
    count = opened.train.count + (0 if opened.test is None else opened.test.count)
    how = checked(params, _SIDE, opened.encoded(), count, seen, progress)
    info = _info(params, opened, how)
    return Inspection(info, _report(params, opened, how, seen), how.settled)


def _report(params: HfImagesParams, opened: _Opened, how: Decoding, seen: list[str]) -> Report:
    train, test, classes = opened.train, opened.test, opened.classes
    rows, test_rows = opened.rows(params)
    labels, test_labels = opened.train_labels, opened.test_labels
    told = "named in `image_column`" if params.image_column else "holds encoded images"
    chose = "named in `label_column`" if params.label_column else "the likeliest column of labels"
    names = classes.names or tuple(map(str, range(classes.count)))
    source = ", ".join(path.name for path in train.files[:20])
    others = [name for name in train.columns if name not in (train.image, train.label)]
    return Report(
        columns=[
            ColumnReport(name=train.image, role="input", type="image", why=told),
            ColumnReport(
                name=train.label, role="target", type="class", why=f"{chose}; {classes.why}"
            ),
        ],
        label=train.label,
        classes=class_reports(
            names, labels[rows], labels[test_rows] if test is None else test_labels
        ),
        splits=[
            SplitReport(name="train", samples=len(rows), source=source),
            SplitReport(
                name="test",
                samples=len(test_rows),
                source=held_out_split(params.test_fraction)
                if test is None
                else ", ".join(path.name for path in test.files[:20]),
            ),
        ],
        guessed=[*how.guessed, *classes.guessed],
        converted=conversions(seen),
        ignored=[f"column {name}" for name in others[:200]],
        sample=[{train.label: names[int(label)]} for label in labels[:SAMPLE_ROWS]],
    )


def read(params: HfImagesParams, root: Path | None) -> Arrays:
    """Return images and labels."""
    opened = _open(params, root)
    how = decoding(params, _SIDE, opened.encoded())
    info = _info(params, opened, how)
    train_rows, test_rows = opened.rows(params)
    train_rows = train_rows[subset_indices(len(train_rows), params.train_samples, "train_samples")]
    test_rows = test_rows[subset_indices(len(test_rows), params.test_samples, "test_samples")]
    test_labels = opened.train_labels if opened.test is None else opened.test_labels
    return Arrays(
        info,
        _read(opened.train, train_rows, opened.train_labels, how),
        _read(opened.test or opened.train, test_rows, test_labels, how),
        notes=how.note(),
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of the files."""
    folder = files.need_root(root)
    return files.digest(_train_files(folder) + parquet_files(folder, *_TEST), folder)


def _info(params: HfImagesParams, opened: _Opened, how: Decoding) -> DataInfo:
    train_rows, test_rows = opened.rows(params)
    info = DataInfo(
        kind="image",
        input_shape=how.shape,
        outputs=opened.classes.count,
        task="classification",
        train_samples=subset_size(len(train_rows), params.train_samples, "train_samples"),
        test_samples=subset_size(len(test_rows), params.test_samples, "test_samples"),
        class_names=opened.classes.names,
    )
    total = info.train_samples + info.test_samples
    files.check_held(total, int(np.prod(how.shape)), "/params/size")
    return info


def _read(source: ParquetImages, rows: Array, labels: Array, how: Decoding) -> Split:
    return Split(collect(source.decoded(rows, how), len(rows), how.shape), labels[rows])


def _open(params: HfImagesParams, root: Path | None) -> _Opened:
    folder = files.need_root(root)
    whole = params.rules == 1
    train = ParquetImages.open(
        _train_files(folder), params.image_column, params.label_column, whole
    )
    found = parquet_files(folder, *_TEST)
    test = ParquetImages.open(found, train.image, train.label, whole) if found else None
    where = train.files[0].name
    labels = train.labels()
    classes = classes_of(labels, where, train.class_names, renumber=not whole)
    codes = classes.codes(labels, where)
    test_codes = codes[:0]
    if test is not None:
        test_codes = classes.codes(test.labels(), test.files[0].name)
    return _Opened(train, test, codes, test_codes, classes)


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
