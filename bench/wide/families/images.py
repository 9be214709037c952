"""Grey images of MNIST and Fashion-MNIST, made smaller, for several families."""

from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from bench.wide.task import Array
from mlhf.data.params import MnistParams
from mlhf.data.specs import DATASETS

Source = Literal["mnist", "fashion_mnist"]


@cache
def images(data: Path, source: Source, size: int) -> tuple[Array, Array]:
    """Return all training images (N, size, size) as bytes, and their classes (N,)."""
    root = data / source if source == "mnist" else None
    found = DATASETS[source].read(MnistParams(size=size), root).train
    assert isinstance(found.targets, np.ndarray)
    return np.asarray(found.inputs).reshape(-1, size, size), found.targets


def chosen(count: int, seed: int, *arrays: Array) -> list[Array]:
    """Return so many rows of each array, the same random ones."""
    rows = np.random.RandomState(seed).permutation(len(arrays[0]))[:count]
    return [each[rows] for each in arrays]
