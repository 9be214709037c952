"""scikit-learn's handwritten digits."""

import gzip
import hashlib
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from mlhf.core.optional import MissingPackageError, from_extra
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    held_out,
    part_indices,
    subset_indices,
    subset_size,
)
from mlhf.data.info import DataInfo
from mlhf.data.params import DigitsParams

_COUNT, _TEST_FRACTION = 1797, 0.2


def describe(params: DigitsParams, root: Path | None) -> DataInfo:
    """Return the known sizes."""
    train, test = _rows(params)
    return DataInfo(
        kind="image",
        input_shape=(1, 8, 8),
        outputs=10,
        task="classification",
        train_samples=subset_size(len(train), params.train_samples, "train_samples"),
        test_samples=subset_size(len(test), params.test_samples, "test_samples"),
        class_names=tuple("0123456789"),
    )


def validate(params: DigitsParams, root: Path | None) -> DataInfo:
    """Return the known sizes: the library's data need no check."""
    return describe(params, root)


def read(params: DigitsParams, root: Path | None) -> Arrays:
    """Return the images with values 0 to 16."""
    info = describe(params, root)
    images, labels = _load()
    train, test = _rows(params)
    train = train[subset_indices(len(train), params.train_samples, "train_samples")]
    test = test[subset_indices(len(test), params.test_samples, "test_samples")]
    return Arrays(info, Split(images[train], labels[train]), Split(images[test], labels[test]))


def _rows(params: DigitsParams) -> tuple[Array, Array]:
    train, test = held_out(_COUNT, _TEST_FRACTION)
    return train[part_indices(params.split, len(train))], test


def digest(root: Path | None) -> str:
    """Return the sha256 of images and labels."""
    images, labels = _load()
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


@lru_cache(maxsize=1)
def _load() -> tuple[Array, Array]:
    """Images and labels, from the file that scikit-learn ships.

    Importing scikit-learn takes half a second, which every run would pay at its start.
    """
    spec = find_spec("sklearn")
    if spec is None or not spec.submodule_search_locations:
        raise MissingPackageError("sklearn", "data")
    path = Path(spec.submodule_search_locations[0]) / "datasets" / "data" / "digits.csv.gz"
    if path.exists():
        with gzip.open(path, "rt") as file:
            table = np.loadtxt(file, delimiter=",", dtype=np.int64)
        images, labels = table[:, :-1], table[:, -1]
    else:
        with from_extra("data"):
            from sklearn.datasets import load_digits

        images, labels = load_digits(return_X_y=True)
    return images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64)
