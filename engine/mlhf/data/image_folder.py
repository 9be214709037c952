"""A folder of images for each class, in the layout of ILSVRC2012."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Lazy,
    Split,
    held_out,
    subset_indices,
    subset_size,
)
from mlhf.data.formats import IMAGE_SUFFIXES
from mlhf.data.image_size import Decoding, checked, conversions, decoding
from mlhf.data.images import collect, map_in_threads
from mlhf.data.info import DataInfo
from mlhf.data.params import ImageFolderParams
from mlhf.data.report import (
    SAMPLE_ROWS,
    Inspection,
    Progress,
    Report,
    SplitReport,
    class_reports,
    held_out_split,
    listed,
)

# Sets whose decoded images take more are decoded batch by batch.
HELD_BYTES = 2**30
# Sets whose files take more are identified by names and sizes, not by content.
DIGEST_BYTES = 4 * 2**30

_TRAIN = "train"
_TEST = ("val", "valid", "validation", "test")
# What was looked for under rules 1.
_OLD_TEST = ("val", "validation", "test")
_SIDE = 224


@dataclass(frozen=True)
class _Files:
    """The image files of one split and their labels."""

    paths: list[str]
    labels: Array

    def take(self, rows: Array) -> "_Files":
        return _Files([self.paths[row] for row in rows], self.labels[rows])


@dataclass(frozen=True)
class _Layout:
    """Where the splits lie.

    Attributes:
        train: Holds a folder for each class.
        test: The same, or None where samples are held out.
        nested: Images in folders of a class's folder are of the class too.
    """

    root: Path
    train: Path
    test: Path | None
    nested: bool
    names: tuple[str, ...]

    def listed(self, split: Path) -> _Files:
        return _listed(split, self)

    def both(self, params: ImageFolderParams) -> tuple[_Files, _Files]:
        """Return the files of train and test, before any subset is chosen."""
        train = self.listed(self.train)
        if self.test is not None:
            return train, self.listed(self.test)
        rows, test_rows = held_out(len(train.paths), params.test_fraction)
        return train.take(rows), train.take(test_rows)


def describe(params: ImageFolderParams, root: Path | None) -> DataInfo:
    """List the folders, and open headers where the size is not told."""
    layout = _layout(params, root)
    train, test = layout.both(params)
    return _info(params, layout, train, test, _decoding(params, layout, train, test))


def validate(params: ImageFolderParams, root: Path | None) -> DataInfo:
    """Decode every image once, keeping none."""
    return inspect(params, root).info


def inspect(
    params: ImageFolderParams, root: Path | None, progress: Progress | None = None
) -> Inspection:
    """Decode every image once, keeping none, and report the folders."""
    layout = _layout(params, root)
    train, test = layout.both(params)
    paths = train.paths + test.paths
    seen: list[str] = []
    how = checked(params, _SIDE, _named(paths, layout.root), len(paths), seen, progress)
    info = _info(params, layout, train, test, how)
    source = held_out_split(params.test_fraction)
    top = "" if layout.train == layout.root else f"{layout.train.name}/"
    report = Report(
        label="the folder's name",
        classes=class_reports(layout.names, train.labels, test.labels),
        splits=[
            SplitReport(name="train", samples=len(train.paths), source=top + "<class>/"),
            SplitReport(
                name="test",
                samples=len(test.paths),
                source=source if layout.test is None else f"{layout.test.name}/<class>/",
            ),
        ],
        guessed=list(how.guessed),
        converted=conversions(seen),
        ignored=_ignored(layout, set(paths)),
        sample=[
            {"file": os.path.relpath(path, layout.root), "label": layout.names[label]}
            for path, label in list(zip(train.paths, train.labels, strict=True))[:SAMPLE_ROWS]
        ],
    )
    return Inspection(info, report, how.settled)


def read(params: ImageFolderParams, root: Path | None) -> Arrays:
    """Return the images, decoded later where they are many."""
    layout = _layout(params, root)
    train, test = layout.both(params)
    how = _decoding(params, layout, train, test)
    info = _info(params, layout, train, test, how)
    train = train.take(subset_indices(len(train.paths), params.train_samples, "train_samples"))
    test = test.take(subset_indices(len(test.paths), params.test_samples, "test_samples"))
    train_split, test_split = (_split(each, layout.root, how) for each in (train, test))
    return Arrays(info, train_split, test_split, notes=how.note())


def digest(root: Path | None) -> str:
    """Return the sha256 of the images; above 4 GiB, of their names and sizes only."""
    layout = _layout(ImageFolderParams(), root)
    folder = layout.root
    splits = [split for split in (layout.train, layout.test) if split is not None]
    paths = [Path(path) for split in splits for path in layout.listed(split).paths]
    sizes = [path.stat().st_size for path in paths]
    if sum(sizes) <= DIGEST_BYTES:
        return files.digest(paths, folder)
    total = hashlib.sha256()
    for name, size in sorted(
        (path.relative_to(folder).as_posix(), size) for path, size in zip(paths, sizes, strict=True)
    ):
        total.update(f"{name}\0{size}\0".encode())
    return total.hexdigest()


def _info(
    params: ImageFolderParams, layout: _Layout, train: _Files, test: _Files, how: Decoding
) -> DataInfo:
    return DataInfo(
        kind="image",
        input_shape=how.shape,
        outputs=len(layout.names),
        task="classification",
        train_samples=subset_size(len(train.paths), params.train_samples, "train_samples"),
        test_samples=subset_size(len(test.paths), params.test_samples, "test_samples"),
        class_names=layout.names,
    )


def _decoding(params: ImageFolderParams, layout: _Layout, train: _Files, test: _Files) -> Decoding:
    return decoding(params, _SIDE, _named(train.paths + test.paths, layout.root))


def _named(paths: list[str], folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield paths, each with the name that errors give it."""
    start = len(str(folder)) + 1
    return ((Path(path), path[start:]) for path in paths)


def _split(split: _Files, folder: Path, how: Decoding) -> Split:
    count = len(split.paths)

    def get(rows: Array) -> Array:
        paths = [split.paths[row] for row in rows]
        return collect(_decoded(paths, folder, how), len(paths), how.shape)

    if count * int(np.prod(how.shape)) > HELD_BYTES:
        return Split(Lazy(get, count), split.labels)
    return Split(get(np.arange(count)), split.labels)


def _decoded(paths: list[str], folder: Path, how: Decoding) -> Iterator[Array]:
    return map_in_threads(lambda item: how(*item), _named(paths, folder))


def _layout(params: ImageFolderParams, root: Path | None) -> _Layout:
    folder = files.need_root(root)
    test = _test_folder(folder, params)
    train = folder / _TRAIN
    if not train.is_dir():
        train = folder
        if test is not None or params.rules == 1 or len(_class_folders(folder)) < 2:
            raise DataError(
                "there is no folder train/ with a folder of images for each class "
                "(train/<class>/*.jpg, val/<class>/*.jpg), nor are there such folders at the top"
            )
    return _Layout(folder, train, test, params.rules != 1, _classes(train))


def _test_folder(folder: Path, params: ImageFolderParams) -> Path | None:
    names = _OLD_TEST if params.rules == 1 else _TEST
    if params.test_split is not None:
        if not (folder / params.test_split).is_dir():
            raise SpecError("/params/test_split", f"there is no folder {params.test_split}/")
        return folder / params.test_split
    return next((folder / name for name in names if (folder / name).is_dir()), None)


def _class_folders(folder: Path) -> list[str]:
    return sorted(e.name for e in _entries(folder) if e.is_dir())


def _classes(train: Path) -> tuple[str, ...]:
    names = tuple(_class_folders(train))
    if len(names) < 2:
        raise DataError(
            f"train/ holds {len(names)} folders; one for each class, at least 2, is needed"
        )
    return names


def _listed(split: Path, layout: _Layout) -> _Files:
    """List the images of a split, class by class, sorted by name."""
    unknown = sorted(set(_class_folders(split)) - set(layout.names))
    if unknown:
        raise DataError(f"{split.name}/{unknown[0]}: train/ has no such class")
    paths: list[str] = []
    labels: list[Array] = []
    for label, name in enumerate(layout.names):
        folder = split / name
        found = _images(folder, layout.nested) if folder.is_dir() else []
        if not found and split == layout.train:
            shown = folder.relative_to(layout.root).as_posix()
            raise DataError(
                f"{shown} holds no image ending in {', '.join(IMAGE_SUFFIXES)}; "
                "add some or remove the folder"
            )
        paths += found
        labels.append(np.full(len(found), label, np.int64))
    if not paths:
        raise DataError(f"{split.name}/ holds no images in folders named as the classes of train/")
    return _Files(paths, np.concatenate(labels))


def _ignored(layout: _Layout, used: set[str]) -> list[str]:
    """Name the files and splits that are not used."""
    single: list[str] = []
    unused: dict[str, int] = {}
    for path in _files(layout.root, nested=True):
        if path in used:
            continue
        name = os.path.relpath(path, layout.root)
        top = name.split(os.sep)[0]
        if layout.train != layout.root and top not in (
            layout.train.name,
            layout.test.name if layout.test is not None else "",
        ):
            unused[top] = unused.get(top, 0) + 1
        else:
            single.append(name)
    folders = [
        f"{name}/: {count} files; `test_split` chooses the test split"
        if (layout.root / name).is_dir()
        else name
        for name, count in sorted(unused.items())
    ]
    return folders + listed(sorted(single), "files")


def _images(folder: Path, nested: bool) -> list[str]:
    return sorted(path for path in _files(folder, nested) if path.lower().endswith(IMAGE_SUFFIXES))


def _files(folder: Path, nested: bool) -> Iterator[str]:
    """Yield the paths of a folder's files, with ``nested`` those of its folders too."""
    for entry in _entries(folder):
        if entry.is_file():
            yield entry.path
        elif nested and entry.is_dir():
            yield from _files(Path(entry.path), nested)


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds, without hidden files. Links could lead out of the data set."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise DataError(f"{folder.name}/{entry.name} is a link; links are not followed")
            if not entry.name.startswith("."):
                yield entry
