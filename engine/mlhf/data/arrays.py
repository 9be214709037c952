"""The arrays that families return: NumPy, not yet normalised."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from mlhf.core.errors import DataError, SpecError
from mlhf.data.info import DataInfo

Array = npt.NDArray[Any]

MAX_CLASSES = 65_536


@dataclass(frozen=True)
class Lazy:
    """Images decoded when a batch asks for them.

    Attributes:
        get: Maps an array of indices to images, uint8 of shape (n, C, H, W).
        length: Number of images.
    """

    get: Callable[[Array], Array]
    length: int


@dataclass(frozen=True)
class Split:
    """One split.

    Attributes:
        inputs: Images (N, C, H, W), uint8 where possible; table (N, F) float64; text: the
            tokens of the whole split, one-dimensional.
        targets: Labels (N,) int64 or regression targets (N, K) float64; text: where each
            sample starts in the tokens, int64. At positions: labels (N, H, W) or (N, T), −100
            where they are left out, and numbers (N, K, H, W) or (N, T, K). Boxes: (N, M, 5). Of
            several heads, such arrays by their names.
        weights: Of the samples, (N,) float64.
    """

    inputs: Array | Lazy
    targets: Array | dict[str, Array]
    weights: Array | None = None

    @property
    def samples(self) -> int:
        """How many there are."""
        targets = self.targets
        return len(next(iter(targets.values())) if isinstance(targets, dict) else targets)

    def taken(self, rows: Array) -> "Split":
        """Return some of the samples of a split in memory."""
        assert not isinstance(self.inputs, Lazy)
        targets = self.targets
        return Split(
            self.inputs[rows],
            {n: each[rows] for n, each in targets.items()}
            if isinstance(targets, dict)
            else targets[rows],
            None if self.weights is None else self.weights[rows],
        )


@dataclass(frozen=True)
class Arrays:
    """A data set in memory.

    Attributes:
        scaled: For tables, which input columns are to be standardised (False: one-hot).
        notes: What a prediction on raw inputs needs besides means and deviations.
    """

    info: DataInfo
    train: Split
    test: Split
    scaled: Array | None = None
    notes: dict[str, Any] = field(default_factory=dict)


def fixed_order(count: int) -> Array:
    """Return the one random order used for splits and subsets.

    RandomState, as NumPy promises that its stream never changes.
    """
    return np.random.RandomState(0).permutation(count)


def subset_indices(available: int, wanted: int | None, parameter: str) -> Array:
    """Return the indices of the first ``wanted`` samples of the fixed order, sorted.

    Args:
        parameter: Name of the parameter that asked, for the error's pointer.
    """
    if wanted is None or wanted == available:
        return np.arange(available)
    subset_size(available, wanted, parameter)
    return np.sort(fixed_order(available)[:wanted])


def subset_size(available: int, wanted: int | None, parameter: str) -> int:
    """Return how many samples a split will have. Raises SpecError when too many are wanted."""
    if wanted is None:
        return available
    if wanted > available:
        raise SpecError(
            f"/params/{parameter}", f"{wanted} wanted, but the split holds only {available}"
        )
    return wanted


def part_indices(split: str, count: int) -> Array:
    """Return the indices of a part of ``count`` training samples: all, meta or compare."""
    cut = round(0.6 * count)
    return {"all": np.arange(count), "meta": np.arange(cut), "compare": np.arange(cut, count)}[
        split
    ]


def held_out(count: int, fraction: float) -> tuple[Array, Array]:
    """Split ``count`` samples into train and test indices (both sorted, neither empty)."""
    test = held_out_count(count, fraction)
    order = fixed_order(count)
    return np.sort(order[test:]), np.sort(order[:test])


def held_out_count(count: int, fraction: float) -> int:
    """Return how many of ``count`` samples are held out for test."""
    if count < 2:
        raise DataError(f"the data set has {count} samples; at least 2 are needed")
    return min(max(round(count * fraction), 1), count - 1)


def checked_labels(labels: Array, where: str, classes: int | None = None) -> Array:
    """Return labels as int64 after checking that they are whole numbers in range.

    Args:
        where: What holds them, for the message.
        classes: Number of classes, where known; labels must then be below it.
    """
    if labels.ndim != 1:
        raise DataError(f"{where}: labels must be one-dimensional, not of shape {labels.shape}")
    if labels.size == 0:
        raise DataError(f"{where}: no samples")
    if labels.dtype.kind not in "iub":
        if labels.dtype.kind != "f" or not np.all(np.isfinite(labels) & (labels % 1 == 0)):
            raise DataError(f"{where}: labels must be whole numbers 0, 1, 2, …")
        if np.abs(labels).max() >= 2**53:
            raise DataError(f"{where}: labels are too large")
    low, high = int(labels.min()), int(labels.max())
    limit = MAX_CLASSES if classes is None else classes
    if low < 0 or high >= limit:
        bad = low if low < 0 else high
        raise DataError(
            f"{where}: label {bad} is out of range; labels must run from 0 to {limit - 1}"
        )
    return labels.astype(np.int64)


def class_count(labels: Array, where: str) -> int:
    """Return the number of classes of training labels. Raises DataError for a single class."""
    present = np.unique(labels)
    if len(present) < 2:
        raise DataError(
            f"{where}: all training samples have the same label; at least two classes are needed"
        )
    classes = int(present[-1]) + 1
    if classes > max(2 * len(present), len(present) + 10):
        raise DataError(
            f"{where}: labels reach {present[-1]}, but only {len(present)} different ones occur; "
            "number the classes 0, 1, 2, … without gaps"
        )
    return classes


def checked_weights(weights: Array, where: str) -> Array:
    """Return the samples' weights (N,) as float64, after checking that none is negative."""
    if weights.ndim != 1:
        raise DataError(f"{where}: weights need the shape (N,), not {weights.shape}")
    values = weights.astype(np.float64)
    if not bool(np.isfinite(values).all()) or bool((values < 0).any()):
        raise DataError(f"{where}: weights must be numbers of 0 and more")
    if not bool(values.any()):
        raise DataError(f"{where}: all weights are 0")
    return values


def check_finite(values: Array, where: str) -> None:
    """Raise DataError unless every value is finite also as float32."""
    if values.dtype.kind == "f":
        limit = np.finfo(np.float32).max
        with np.errstate(invalid="ignore"):
            fine = bool(np.all(np.abs(values) <= limit))
        if not fine:
            raise DataError(
                f"{where}: contains NaN, infinite, or too large values; remove or replace them"
            )
