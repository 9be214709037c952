"""Arrays of many images."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from mlhf.data.arrays import Array

T = TypeVar("T")

# Small parts: many items a task for small images, many tasks a chunk for large ones.
_CHUNK, _PART = 128, 16


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
