"""The annotations of COCO: a JSON document, checked before anything is made of it."""

import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data.arrays import MAX_CLASSES, Array

MOST_BYTES = 512 * 2**20
MOST_BOXES = 1000  # of an image


@dataclass(frozen=True)
class Annotated:
    """The images of a document.

    Attributes:
        where: The document's name.
        files: The name of each image.
        boxes: Of each image, (n, 5): x1, y1, x2, y2 in pixels, and the class.
        categories: Classes by the ids that the document has for them.
        names: Of the classes, in order.
        notes: What is not read as it is stored.
        dropped: What is not used.
    """

    where: str
    files: list[str]
    boxes: list[Array]
    categories: dict[int, int]
    names: tuple[str, ...]
    notes: tuple[str, ...]
    dropped: tuple[str, ...]


def read_annotations(
    path: Path, folder: Path, categories: Mapping[int, int] | None = None
) -> Annotated:
    """Read a document.

    Args:
        path: The file.
        folder: Names in errors are relative to it.
        categories: Those that the training images have; others are refused.

    Raises:
        DataError: it is not such a document, with what is wrong.
    """
    where = os.path.relpath(path, folder)
    if path.stat().st_size > MOST_BYTES:
        raise DataError(f"{where}: larger than {MOST_BYTES // 2**20} MiB")
    try:
        content = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: no JSON: {str(error)[:200]}") from None
    images, annotations, listed = (
        _list(content, name, where) for name in ("images", "annotations", "categories")
    )
    own, names = _categories(listed, where)
    if categories is not None:
        unknown = sorted(set(own) - set(categories))
        if unknown:
            raise DataError(f"{where}: the training images have no category of id {unknown[0]}")
        own = dict(categories)
    at: dict[Any, int] = {}
    names_of: list[str] = []
    for number, image in enumerate(images):
        identity, name = _field(image, "id", where, f"images/{number}"), image.get("file_name")
        if not isinstance(name, str) or not name:
            raise DataError(f"{where}: images/{number} has no file_name")
        if identity in at:
            raise DataError(f"{where}: two images have the id {identity}")
        at[identity] = len(names_of)
        names_of.append(name)
    if not names_of:
        raise DataError(f"{where}: has no images")
    boxes: list[list[tuple[float, ...]]] = [[] for _ in names_of]
    crowds = flat = 0
    for number, each in enumerate(annotations):
        place = f"annotations/{number}"
        image = _field(each, "image_id", where, place)
        if image not in at:
            raise DataError(f"{where}: {place} is of the image {image}, which is not listed")
        category = _field(each, "category_id", where, place)
        if category not in own:
            raise DataError(f"{where}: {place} is of the category {category}, which is not listed")
        if each.get("iscrowd"):
            crowds += 1
            continue
        x, y, width, height = _box(each.get("bbox"), where, place)
        if width == 0 or height == 0:
            flat += 1
            continue
        boxes[at[image]].append((x, y, x + width, y + height, own[category]))
    most = max(map(len, boxes))
    if most > MOST_BOXES:
        raise DataError(f"{where}: an image has {most} boxes; at most {MOST_BOXES} are taken")
    if categories is None and not most:
        raise DataError(f"{where}: no image has a box")
    dropped = [f"{where}: {crowds} boxes of crowds (iscrowd)"] * bool(crowds)
    dropped += [f"{where}: {flat} boxes without an area"] * bool(flat)
    empty = sum(not each for each in boxes)
    notes = (f"{where}: {empty} images without a box, which are background",) * bool(empty)
    arrays = [np.array(each, np.float64).reshape(-1, 5) for each in boxes]
    return Annotated(where, names_of, arrays, own, names, notes, tuple(dropped))


def _categories(listed: list[Any], where: str) -> tuple[dict[int, int], tuple[str, ...]]:
    found: dict[int, str] = {}
    for number, each in enumerate(listed):
        identity = _field(each, "id", where, f"categories/{number}")
        if identity in found:
            raise DataError(f"{where}: two categories have the id {identity}")
        found[identity] = str(each.get("name", identity))[:200]
    if not 1 <= len(found) <= MAX_CLASSES:
        raise DataError(f"{where}: needs from 1 to {MAX_CLASSES} categories, not {len(found)}")
    order = sorted(found)
    return {identity: label for label, identity in enumerate(order)}, tuple(
        found[identity] for identity in order
    )


def _list(content: Any, name: str, where: str) -> list[Any]:
    found = content.get(name) if isinstance(content, dict) else None
    if not isinstance(found, list):
        raise DataError(
            f"{where}: is no COCO document: an object with the lists images, annotations and "
            f"categories; {name} is missing"
        )
    for number, each in enumerate(found):
        if not isinstance(each, dict):
            raise DataError(f"{where}: {name}/{number} is no object")
    return found


def _field(each: Mapping[str, Any], name: str, where: str, place: str) -> int:
    value = each.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        raise DataError(f"{where}: {place} has no whole number as {name}")
    return value


def _box(box: Any, where: str, place: str) -> tuple[float, float, float, float]:
    fine = (
        isinstance(box, list)
        and len(box) == 4
        and all(isinstance(v, int | float) and not isinstance(v, bool) for v in box)
        and all(abs(v) < 1e9 and math.isfinite(v) for v in box)
        and min(box[2:]) >= 0
    )
    if not fine:
        raise DataError(
            f"{where}: {place}: bbox should be [x, y, width, height] in pixels, not {str(box)[:80]}"
        )
    return float(box[0]), float(box[1]), float(box[2]), float(box[3])
