"""A folder of images for each class, in the layout of ILSVRC2012."""

import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Lazy,
    Split,
    chosen,
    counted,
    held_out,
    held_out_count,
)
from mlhf.data.formats import IMAGE_SUFFIXES
from mlhf.data.image_decoder import decode
from mlhf.data.images import (
    collect,
    map_in_threads,
)
from mlhf.data.info import DataInfo
from mlhf.data.params import ImageFolderParams

# Sets whose decoded images take more are decoded batch by batch.
HELD_BYTES = 2**30
# Sets whose files take more are identified by names and sizes, not by content.
DIGEST_BYTES = 4 * 2**30

_TEST = ("val", "validation", "test")


@dataclass(frozen=True)
class _Files:
    """The image files of one split and their labels."""

    paths: list[str]
    labels: Array

    def take(self, rows: Array) -> "_Files":
        return _Files([self.paths[row] for row in rows], self.labels[rows])


def describe(params: ImageFolderParams, root: Path | None) -> DataInfo:
    """List the folders; no image is opened."""
    folder = _folder(root)
    names = _classes(folder)
    train = len(_listed(folder / "train", names).paths)
    if (held := _test_folder(folder)) is not None:
        test = len(_listed(held, names).paths)
    else:
        test = held_out_count(train, params.test_fraction)
        train -= test
    return _info(params, names, train, test)


def validate(params: ImageFolderParams, root: Path | None) -> DataInfo:
    """Decode every image once, keeping none."""
    info = describe(params, root)
    folder = _folder(root)
    names = _classes(folder)
    for split in (folder / "train", _test_folder(folder)):
        if split is not None:
            for _ in _decoded(_listed(split, names).paths, folder, params):
                pass
    return info


def read(params: ImageFolderParams, root: Path | None) -> Arrays:
    """Return the images, decoded later where they are many."""
    folder = _folder(root)
    names = _classes(folder)
    train = _listed(folder / "train", names)
    if (held := _test_folder(folder)) is not None:
        test = _listed(held, names)
    else:
        rows, test_rows = held_out(len(train.paths), params.test_fraction)
        train, test = train.take(rows), train.take(test_rows)
    info = _info(params, names, len(train.paths), len(test.paths))
    train = train.take(chosen(len(train.paths), params.train_samples, "train_samples"))
    test = test.take(chosen(len(test.paths), params.test_samples, "test_samples"))
    return Arrays(info, _split(train, folder, params), _split(test, folder, params))


def digest(root: Path | None) -> str:
    """Return the sha256 of the files; above 4 GiB, of their names and sizes only."""
    folder = _folder(root)
    names = _classes(folder)
    splits = [split for split in (folder / "train", _test_folder(folder)) if split is not None]
    paths = [Path(path) for split in splits for path in _listed(split, names).paths]
    sizes = [path.stat().st_size for path in paths]
    if sum(sizes) <= DIGEST_BYTES:
        return files.digest(paths, folder)
    total = hashlib.sha256()
    for name, size in sorted(
        (path.relative_to(folder).as_posix(), size) for path, size in zip(paths, sizes, strict=True)
    ):
        total.update(f"{name}\0{size}\0".encode())
    return total.hexdigest()


def _info(params: ImageFolderParams, names: tuple[str, ...], train: int, test: int) -> DataInfo:
    return DataInfo(
        kind="image",
        input_shape=(params.channels, params.size, params.size),
        outputs=len(names),
        task="classification",
        train_samples=counted(train, params.train_samples, "train_samples"),
        test_samples=counted(test, params.test_samples, "test_samples"),
        class_names=names,
    )


def _split(split: _Files, folder: Path, params: ImageFolderParams) -> Split:
    shape = (params.channels, params.size, params.size)
    count = len(split.paths)

    def get(rows: Array) -> Array:
        paths = [split.paths[row] for row in rows]
        return collect(_decoded(paths, folder, params), len(paths), shape)

    if count * int(np.prod(shape)) > HELD_BYTES:
        return Split(Lazy(get, count), split.labels)
    return Split(get(np.arange(count)), split.labels)


def _decoded(paths: list[str], folder: Path, params: ImageFolderParams) -> Iterator[Array]:
    def one(path: str) -> Array:
        where = os.path.relpath(path, folder)
        return decode(Path(path), where, params.channels, params.size)

    return map_in_threads(one, paths)


def _folder(root: Path | None) -> Path:
    folder = files.need_root(root)
    if not (folder / "train").is_dir():
        raise DataError(
            "there is no folder train/ with a folder of images for each class "
            "(train/<class>/*.jpg, val/<class>/*.jpg)"
        )
    return folder


def _test_folder(folder: Path) -> Path | None:
    return next((folder / name for name in _TEST if (folder / name).is_dir()), None)


def _classes(folder: Path) -> tuple[str, ...]:
    names = tuple(sorted(e.name for e in _entries(folder / "train") if e.is_dir()))
    if len(names) < 2:
        raise DataError(
            f"train/ holds {len(names)} folders; one for each class, at least 2, is needed"
        )
    return names


def _listed(split: Path, names: tuple[str, ...]) -> _Files:
    """List the images of a split, class by class, sorted by name."""
    unknown = sorted({e.name for e in _entries(split) if e.is_dir()} - set(names))
    if unknown:
        raise DataError(f"{split.name}/{unknown[0]}: train/ has no such class")
    paths: list[str] = []
    labels: list[Array] = []
    for label, name in enumerate(names):
        folder = split / name
        found = _images(folder) if folder.is_dir() else []
        if not found and split.name == "train":
            raise DataError(
                f"train/{name} holds no image ending in {', '.join(IMAGE_SUFFIXES)}; "
                "add some or remove the folder"
            )
        paths += found
        labels.append(np.full(len(found), label, np.int64))
    if not paths:
        raise DataError(f"{split.name}/ holds no images in folders named as the classes of train/")
    return _Files(paths, np.concatenate(labels))


def _images(folder: Path) -> list[str]:
    return sorted(
        entry.path
        for entry in _entries(folder)
        if entry.name.lower().endswith(IMAGE_SUFFIXES) and entry.is_file()
    )


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    """Yield what a folder holds, without hidden files. Links could lead out of the data set."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                raise DataError(f"{folder.name}/{entry.name} is a link; links are not followed")
            if not entry.name.startswith("."):
                yield entry
