"""Labels as classes: whole numbers, text, true or false, decimal numbers."""

from dataclasses import dataclass

import numpy as np

from mlhf.core.errors import DataError
from mlhf.data.arrays import MAX_CLASSES, Array, checked_labels, class_count

# Of fewer samples, it may be that most classes have a single one.
_ENOUGH = 20


@dataclass(frozen=True)
class Classes:
    """What labels stand for.

    Attributes:
        count: Number of classes.
        names: In the order of the classes, where known.
        why: What the classes follow from.
        first: Number of the first class, where labels are whole numbers.
        values: The labels in the order of the classes, where they are anything else.
    """

    count: int
    names: tuple[str, ...] | None
    why: str
    first: int = 0
    values: Array | None = None
    guessed: tuple[str, ...] = ()

    def codes(self, labels: Array, where: str) -> Array:
        """Return the classes (N,) of labels. Raises DataError for a label that names none."""
        if self.values is None:
            if self.first:
                labels = checked_labels(labels - self.first, f"{where} (from {self.first})")
            return checked_labels(labels, where, self.count)
        at = np.minimum(np.searchsorted(self.values, labels), len(self.values) - 1)
        wrong = np.flatnonzero(self.values[at] != labels)
        if len(wrong):
            raise DataError(
                f"{where}: label {labels[wrong[0]]!r} in row {wrong[0] + 1} is not among those of "
                "the training samples"
            )
        return at.astype(np.int64)


def classes_of(
    labels: Array,
    where: str,
    names: tuple[str, ...] | None = None,
    renumber: bool = True,
    hint: str | None = "is it the column of labels?",
) -> Classes:
    """Return the classes of training labels.

    Args:
        labels: One for each sample.
        where: What holds them, for errors.
        names: Of the classes 0, 1, 2, …, where the file has them.
        renumber: Labels whose smallest is 1 are classes 0, 1, 2, … named 1, 2, 3, ….
        hint: Ends the error for labels of which most occur once; None takes them.
    """
    if labels.dtype.kind in "iu" or names is not None:
        return _numbered(labels, where, names, renumber, hint)
    if labels.dtype.kind == "f" and not np.isfinite(labels).all():
        raise DataError(f"{where}: a label is NaN or infinite")
    values = np.unique(labels)
    if len(values) < 2:
        class_count(np.zeros(1), where)  # says that there is one class
    if len(values) > MAX_CLASSES:
        raise DataError(f"{where}: {len(values)} classes; at most {MAX_CLASSES} are taken")
    _check_repeated(len(values), labels, where, hint)
    if labels.dtype.kind == "b":
        texts, what = tuple("true" if value else "false" for value in values), "true or false"
    elif labels.dtype.kind == "f":
        texts, what = tuple(f"{value:.15g}" for value in values), "different decimal numbers"
    else:
        texts, what = tuple(str(value) for value in values), "different texts, in their order"
    guessed = (f"decimal labels are {len(values)} classes",) if labels.dtype.kind == "f" else ()
    return Classes(len(values), texts, f"{what} are classes", values=values, guessed=guessed)


def _check_repeated(different: int, labels: Array, where: str, hint: str | None) -> None:
    if hint is not None and len(labels) >= _ENOUGH and 2 * different > len(labels):
        raise DataError(
            f"{where}: {different} different labels of {len(labels)} samples are no classes; {hint}"
        )


def _numbered(
    labels: Array, where: str, names: tuple[str, ...] | None, renumber: bool, hint: str | None
) -> Classes:
    first = 0
    if renumber and names is None and labels.size and labels.min() == 1:
        first = 1
    checked = checked_labels(labels - first if first else labels, where)
    count = class_count(checked, where)
    if names is not None:
        return Classes(len(names), names, "whole numbers, named in the file")
    if renumber:
        _check_repeated(len(np.unique(checked)), labels, where, hint)
    guessed = []
    if first:
        guessed.append(f"labels run from 1 to {count}: label 1 is the first class")
    unused = count - len(np.unique(checked))
    if unused:
        guessed.append(f"{unused} of the {count} numbers below the largest label do not occur")
    texts = tuple(str(each + first) for each in range(count)) if first else None
    return Classes(count, texts, "whole numbers are classes", first, guessed=tuple(guessed))
