"""Images with boxes, in the layout of COCO: files and a JSON of images, annotations, categories."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.data import files
from mlhf.data.arrays import Array, Arrays, Lazy, Split, held_out, subset_indices, subset_size
from mlhf.data.coco_annotations import Annotated, read_annotations
from mlhf.data.formats import IMAGE_SUFFIXES
from mlhf.data.image_decoder import probe
from mlhf.data.image_size import Decoding, checked, conversions, decoding
from mlhf.data.images import collect, map_in_threads
from mlhf.data.info import DataInfo
from mlhf.data.params import CocoParams
from mlhf.data.report import (
    SAMPLE_ROWS,
    ClassReport,
    ColumnReport,
    Inspection,
    Progress,
    Report,
    SplitReport,
    held_out_split,
    listed,
)

_HELD_BYTES = 2**30
_SIDE = 128
_TEST = ("val", "valid", "validation", "test")
_NO_BOX = -100.0  # the class of rows that fill up


@dataclass(frozen=True)
class _Images:
    """The images of a split.

    Attributes:
        paths: Their files.
        boxes: Of each image, (n, 5): x1, y1, x2, y2 in its own pixels, and the class.
    """

    paths: list[str]
    boxes: list[Array]

    def take(self, rows: Array) -> "_Images":
        return _Images([self.paths[row] for row in rows], [self.boxes[row] for row in rows])


@dataclass(frozen=True)
class _Found:
    """Both splits before any subset is chosen, and where they come from."""

    root: Path
    train: _Images
    test: _Images
    names: tuple[str, ...]
    sources: tuple[str, str]
    notes: tuple[str, ...]
    dropped: tuple[str, ...]
    ignored: tuple[str, ...]

    @property
    def paths(self) -> list[str]:
        return self.train.paths + self.test.paths

    @property
    def most(self) -> int:
        return max(1, *(len(each) for each in self.train.boxes + self.test.boxes))


def describe(params: CocoParams, root: Path | None) -> DataInfo:
    """Read the annotations, and open headers where the size is not told."""
    found = _found(params, root)
    return _info(params, found, decoding(params, _SIDE, _named(found.paths, found.root)))


def validate(params: CocoParams, root: Path | None) -> DataInfo:
    """Decode every image once, keeping none."""
    return inspect(params, root).info


def inspect(params: CocoParams, root: Path | None, progress: Progress | None = None) -> Inspection:
    """Decode every image once, keeping none, and report the annotations."""
    found = _found(params, root)
    seen: list[str] = []
    named = _named(found.paths, found.root)
    how = checked(params, _SIDE, named, len(found.paths), seen, progress)
    _scaled(found.train, found, how)
    _scaled(found.test, found, how)
    report = Report(
        columns=[
            ColumnReport(
                name="annotations",
                role="target",
                type="targets",
                why=f"boxes with classes, at most {found.most} in an image",
            )
        ],
        label="category_id",
        classes=[
            ClassReport(
                name=name,
                train=_count(found.train, label),
                test=_count(found.test, label),
            )
            for label, name in enumerate(found.names[:200])
        ],
        splits=[
            SplitReport(name="train", samples=len(found.train.paths), source=found.sources[0]),
            SplitReport(name="test", samples=len(found.test.paths), source=found.sources[1]),
        ],
        guessed=list(how.guessed),
        converted=[*conversions(seen), *found.notes],
        ignored=[*found.dropped, *listed(found.ignored, "files")],
        sample=[
            {
                "file": os.path.relpath(path, found.root),
                "boxes": [
                    [*np.round(box[:4], 2).tolist(), found.names[int(box[4])]] for box in boxes[:10]
                ],
            }
            for path, boxes in list(zip(found.train.paths, found.train.boxes, strict=True))[
                :SAMPLE_ROWS
            ]
        ],
    )
    return Inspection(_info(params, found, how), report, how.settled)


def read(params: CocoParams, root: Path | None) -> Arrays:
    """Return the images, decoded later where they are many, with boxes in their new pixels."""
    found = _found(params, root)
    how = decoding(params, _SIDE, _named(found.paths, found.root))
    info = _info(params, found, how)
    splits = []
    for images, wanted, name in (
        (found.train, params.train_samples, "train_samples"),
        (found.test, params.test_samples, "test_samples"),
    ):
        chosen = images.take(subset_indices(len(images.paths), wanted, name))
        splits.append(_split(chosen, found, how))
    train, test = splits
    return Arrays(info, train, test, notes=how.note())


def digest(root: Path | None) -> str:
    """Return the sha256 of the annotations and the images."""
    folder = files.need_root(root)
    suffixes = (*IMAGE_SUFFIXES, ".json")
    paths = [Path(p) for p in _files(folder) if p.lower().endswith(suffixes)]
    if not paths:
        raise DataError("there are no images and no .json file of annotations")
    return files.digest(sorted(paths), folder)


def _info(params: CocoParams, found: _Found, how: Decoding) -> DataInfo:
    return DataInfo(
        kind="image",
        input_shape=how.shape,
        outputs=len(found.names),
        task="detection",
        train_samples=subset_size(len(found.train.paths), params.train_samples, "train_samples"),
        test_samples=subset_size(len(found.test.paths), params.test_samples, "test_samples"),
        class_names=found.names,
        boxes=found.most,
    )


def _split(images: _Images, found: _Found, how: Decoding) -> Split:
    targets, count = _scaled(images, found, how), len(images.paths)

    def get(rows: Array) -> Array:
        paths = [images.paths[row] for row in rows]
        stacks = map_in_threads(lambda item: how(*item), _named(paths, found.root))
        return collect(stacks, len(paths), how.shape)

    if count * int(np.prod(how.shape)) > _HELD_BYTES:
        return Split(Lazy(get, count), targets)
    return Split(get(np.arange(count)), targets)


def _scaled(images: _Images, found: _Found, how: Decoding) -> Array:
    """Return the boxes (N, M, 5) in pixels of the decoded images; rows of class −100 fill up.

    Raises:
        DataError: a box lies outside of its image.
    """
    result = np.zeros((len(images.paths), found.most, 5), np.float32)
    result[..., 4] = _NO_BOX
    stacks = map_in_threads(lambda item: probe(*item), _named(images.paths, found.root))
    sizes = np.concatenate(list(stacks)) if images.paths else np.zeros((0, 3))
    for at, (boxes, (height, width, _)) in enumerate(zip(images.boxes, sizes, strict=True)):
        if not len(boxes):
            continue
        x, y = boxes[:, [0, 2]], boxes[:, [1, 3]]
        outside = (x[:, 0] >= width) | (y[:, 0] >= height) | (x[:, 1] <= 0) | (y[:, 1] <= 0)
        if outside.any():
            box = [round(float(v), 2) for v in boxes[outside.argmax(), :4]]
            raise DataError(
                f"{os.path.relpath(images.paths[at], found.root)}: the box from x, y = {box[:2]} "
                f"to {box[2:]} lies outside of the image of {width}×{height} pixels; `bbox` is "
                "[x, y, width, height] in pixels"
            )
        result[at, : len(boxes), [0, 2]] = x.clip(0, width).T * how.width / width
        result[at, : len(boxes), [1, 3]] = y.clip(0, height).T * how.height / height
        result[at, : len(boxes), 4] = boxes[:, 4]
    return result


def _found(params: CocoParams, root: Path | None) -> _Found:
    folder = files.need_root(root)
    listing = sorted(_files(folder))
    documents = [path for path in listing if path.lower().endswith(".json")]
    images = [path for path in listing if path.lower().endswith(IMAGE_SUFFIXES)]
    train_path, test_path, unused = _documents(documents, folder, params)
    train = read_annotations(train_path, folder)
    test = None if test_path is None else read_annotations(test_path, folder, train.categories)
    by_name: dict[str, list[str]] = {}
    for path in images:
        by_name.setdefault(os.path.basename(path), []).append(path)

    def placed(found: Annotated) -> _Images:
        paths = [_path(name, folder, by_name, found.where) for name in found.files]
        return _Images(paths, found.boxes)

    if test is None:
        whole = placed(train)
        rows, test_rows = held_out(len(whole.paths), params.test_fraction)
        both = whole.take(rows), whole.take(test_rows)
        sources = train.where, held_out_split(params.test_fraction)
    else:
        both = placed(train), placed(test)
        sources = train.where, test.where
    parts = [each for each in (train, test) if each is not None]
    used = set(both[0].paths) | set(both[1].paths)
    rest = [path for path in images if path not in used] + unused
    return _Found(
        folder,
        *both,
        train.names,
        sources,
        tuple(note for each in parts for note in each.notes),
        tuple(note for each in parts for note in each.dropped),
        tuple(os.path.relpath(path, folder) for path in rest),
    )


def _documents(
    documents: list[str], folder: Path, params: CocoParams
) -> tuple[Path, Path | None, list[str]]:
    """Return the annotations of train and, where there are some, of test; and other JSON."""
    names = {os.path.relpath(path, folder): Path(path) for path in documents}
    if not names:
        raise DataError("there is no .json file of annotations beside the images")

    def named(parameter: str, value: str) -> Path:
        if value not in names:
            raise SpecError(
                f"/params/{parameter}", f"there is no {value!r}; there are {', '.join(names)[:500]}"
            )
        return names[value]

    test_names = [n for n in names if any(word in n.lower() for word in _TEST)]
    test = test_names[0] if len(test_names) == 1 and len(names) > 1 else None
    if params.test_annotations is not None:
        named("test_annotations", params.test_annotations)
        test = params.test_annotations
    rest = [n for n in names if n != test]
    train = params.annotations
    if train is None:
        likely = [n for n in rest if "train" in n.lower()] or rest
        instances = [n for n in likely if "instances" in n.lower()] or likely
        if len(instances) != 1:
            raise SpecError(
                "/params/annotations",
                f"several .json files could be the annotations: {', '.join(names)[:500]}; name one",
            )
        train = instances[0]
    chosen = named("annotations", train)
    unused = [str(path) for n, path in names.items() if n not in (train, test)]
    return chosen, None if test is None else names[test], unused


def _path(name: str, folder: Path, by_name: dict[str, list[str]], where: str) -> str:
    """The file of an image: where its name leads, or the only one that ends so."""
    wanted = os.path.normpath(name.replace("\\", "/"))
    candidates = by_name.get(os.path.basename(wanted), [])
    exact = [p for p in candidates if os.path.relpath(p, folder) == wanted]
    ending = [p for p in candidates if os.path.relpath(p, folder).endswith("/" + wanted)]
    found = exact or ending or candidates
    if len(found) != 1:
        what = "is not among the files" if not found else "is the name of several files"
        raise DataError(f"{where}: the image {name[:200]!r} {what}")
    return found[0]


def _count(images: _Images, label: int) -> int:
    return sum(int((boxes[:, 4] == label).sum()) for boxes in images.boxes)


def _named(paths: list[str], folder: Path) -> Iterator[tuple[Path, str]]:
    return ((Path(path), os.path.relpath(path, folder)) for path in paths)


def _files(folder: Path) -> Iterator[str]:
    for base, folders, names in os.walk(folder):
        folders[:] = [each for each in folders if not each.startswith(".")]
        for name in names:
            path = os.path.join(base, name)
            if os.path.islink(path):
                raise DataError(f"{name} is a link; links are not followed")
            if not name.startswith("."):
                yield path
