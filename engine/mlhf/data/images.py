"""Arrays of many images."""

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np

from mlhf.data.arrays import Array

T = TypeVar("T")

# A task decodes several images, as starting one costs time; a chunk has many tasks, as large
# images take long.
_CHUNK, _PER_TASK = 128, 16


def map_in_threads(function: Callable[[T], Array], items: Iterable[T]) -> Iterator[Array]:
    """Apply ``function`` in threads (decoders release the GIL), a bounded number at a time.

    Yields:
        Stacks of at most 128 results, in order.
    """
    items = iter(items)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        while chunk := list(islice(items, _CHUNK)):
            tasks = [chunk[at : at + _PER_TASK] for at in range(0, len(chunk), _PER_TASK)]
            done = pool.map(lambda items: [function(item) for item in items], tasks)
            yield np.stack([result for results in done for result in results])


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
