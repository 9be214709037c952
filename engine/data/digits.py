"""scikit-learn's handwritten digits."""

import hashlib
from pathlib import Path

import numpy as np

from engine.data.arrays import Array, Arrays, Split, chosen, counted, held_out
from engine.data.info import DataInfo
from engine.data.params import DigitsParams

_COUNT, _TEST_FRACTION = 1797, 0.2


def describe(params: DigitsParams, root: Path | None) -> DataInfo:
    """Return the known sizes."""
    train, test = held_out(_COUNT, _TEST_FRACTION)
    return DataInfo(
        kind="image",
        input_shape=(1, 8, 8),
        outputs=10,
        task="classification",
        train_samples=counted(len(train), params.train_samples, "train_samples"),
        test_samples=counted(len(test), params.test_samples, "test_samples"),
        class_names=tuple("0123456789"),
    )


def validate(params: DigitsParams, root: Path | None) -> DataInfo:
    """Return the known sizes: the library's data need no check."""
    return describe(params, root)


def read(params: DigitsParams, root: Path | None) -> Arrays:
    """Return the images with values 0 to 16."""
    info = describe(params, root)
    images, labels = _load()
    train, test = held_out(_COUNT, _TEST_FRACTION)
    train = train[chosen(len(train), params.train_samples, "train_samples")]
    test = test[chosen(len(test), params.test_samples, "test_samples")]
    return Arrays(info, Split(images[train], labels[train]), Split(images[test], labels[test]))


def digest(root: Path | None) -> str:
    """Return the sha256 of images and labels."""
    images, labels = _load()
    return hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()


def _load() -> tuple[Array, Array]:
    from sklearn.datasets import load_digits  # takes half a second to import

    images, labels = load_digits(return_X_y=True)
    return images.astype(np.uint8).reshape(-1, 1, 8, 8), labels.astype(np.int64)
