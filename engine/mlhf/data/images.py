"""Decoding and resizing images. Hostile files raise DataError before much memory is used."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image, ImageOps

from mlhf.core.errors import DataError
from mlhf.data.arrays import Array

_PILLOW_FORMATS = ("JPEG", "PNG", "BMP", "WEBP")
MAX_PIXELS = 25_000_000

T = TypeVar("T")

# Small parts: many items a task for small images, many tasks a chunk for large ones.
_CHUNK, _PART = 128, 16


def decode(source: bytes | Path, where: str, channels: int, size: int | None = None) -> Array:
    """Return an image as uint8 of shape (C, H, W).

    Args:
        source: The encoded image or its file.
        where: What it is, for errors.
        channels: 3 for colour, 1 for grey.
        size: Resize the short side to this and keep the centre; None keeps the image's size.
    """
    # Decoders raise whatever they like on a broken file, so every error means "broken".
    try:
        with Image.open(
            BytesIO(source) if isinstance(source, bytes) else source, formats=_PILLOW_FORMATS
        ) as image:
            mode = "RGB" if channels == 3 else "L"
            if size is not None:
                image.draft(mode, (size, size))  # JPEG: decode at a fraction of the size
            if image.width * image.height > MAX_PIXELS:
                raise DataError(
                    f"{where}: {image.width}x{image.height} pixels are too many; at most "
                    f"{MAX_PIXELS:,} are decoded"
                )
            pixels = image.convert(mode)
        if size is not None and pixels.size != (size, size):
            pixels = ImageOps.fit(pixels, (size, size), Image.Resampling.BILINEAR)
        array = np.asarray(pixels, dtype=np.uint8)
    except DataError:
        raise
    except Exception as error:
        raise DataError(
            f"{where}: not a readable image ({', '.join(_PILLOW_FORMATS)}): {str(error)[:200]}"
        ) from None
    return array[None] if channels == 1 else np.ascontiguousarray(array.transpose(2, 0, 1))


def map_in_threads(function: Callable[[T], Array], items: Iterable[T]) -> Iterator[Array]:
    """Apply ``function`` in threads (decoders release the GIL), a bounded number at a time.

    Yields:
        Stacks of at most 128 results, in order.
    """
    items = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(items, _CHUNK)):
            parts = [chunk[at : at + _PART] for at in range(0, len(chunk), _PART)]
            done = pool.map(lambda part: [function(item) for item in part], parts)
            yield np.stack([result for part in done for result in part])


def collect(stacks: Iterable[Array], count: int, shape: tuple[int, ...]) -> Array:
    """Write stacks of images one after the other into one uint8 array."""
    images = np.empty((count, *shape), np.uint8)
    at = 0
    for stack in stacks:
        images[at : at + len(stack)] = stack
        at += len(stack)
    return images


def half_size(images: Array) -> Array:
    """Return uint8 images (N, C, H, W) of half the side: the rounded mean of 2x2 squares."""
    n, c, h, w = images.shape
    squares = images.reshape(n, c, h // 2, 2, w // 2, 2)
    means: Array = (squares.sum((3, 5), dtype=np.uint16) + 2) >> 2
    return means.astype(np.uint8)
