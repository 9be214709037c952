"""What the targets of an .npz file are: classes, labels, numbers; of samples or positions."""

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.data.arrays import MAX_CLASSES, Array, check_finite, checked_labels, class_count
from mlhf.data.info import TargetInfo, Task
from mlhf.data.labels import Classes, classes_of
from mlhf.data.npz_file import Member
from mlhf.data.params import NpzParams

# Different whole numbers among decimal targets that look like classes.
_FEW = 20
IGNORED = -100  # the class of what is left out, in the arrays that training reads


@dataclass(frozen=True)
class Targets:
    """What the targets were taken for.

    Attributes:
        one_hot: They are rows of which one value is 1 and the rest 0.
        classes: Of classification, what the labels stand for.
        positions: Where a sample has a target each.
        channels_last: Real targets of pixels have their numbers along the last axis.
        least: The smallest value of regression targets.
    """

    task: Task
    outputs: int
    why: str
    classes: Classes | None = None
    one_hot: bool = False
    guessed: tuple[str, ...] = ()
    positions: tuple[int, ...] = ()
    channels_last: bool = False
    least: float | None = None

    def with_least(self, least: float) -> "Targets":
        """Return them with another smallest value."""
        return replace(self, least=least if np.isfinite(least) else None)

    @property
    def info(self) -> TargetInfo:
        """What a model and a loss need to know of them."""
        names = None if self.classes is None else self.classes.names
        return TargetInfo(self.task, self.outputs, self.positions, self.least, names)


def targets_of(
    params: NpzParams, values: Array, y: Member, positions: tuple[int, ...] = ()
) -> Targets:
    """Return what targets are.

    Args:
        values: Of the training samples.
        y: Their array.
        positions: Where the inputs have a pixel, token or step each: targets of that shape are
            taken for one at each.
    """
    if (found := _of_positions(params, values, y, positions)) is not None:
        return found
    if params.ignore_index is not None:
        if params.task not in ("auto", "classification") or values.dtype.kind not in "iu":
            raise SpecError("/params/ignore_index", f"{y.where}: only whole numbers are classes")
        return _labels(params, _squeezed(values), y, ())
    whole = y.dtype.kind in "iub" and (values.ndim == 1 or values.shape[1:] == (1,))
    if params.task == "multilabel" and not _is_yes_or_no(values):
        raise SpecError(
            "/params/task",
            f"{y.where}: {y.shape} are not several labels a sample; multilabel needs rows (N, K) "
            "of 0 and 1",
        )
    if params.rules != 1 and params.task in ("auto", "classification") and _is_one_hot(values):
        codes = values.argmax(1)
        class_count(codes, y.where)  # raises where all are of one class
        classes = Classes(values.shape[1], None, "one-hot")
        guessed = [f"{y.name} is one-hot: {values.shape[1]} classes"]
        if unused := values.shape[1] - len(np.unique(codes)):
            guessed.append(f"{unused} of the {values.shape[1]} classes do not occur")
        return Targets(
            "classification",
            values.shape[1],
            "rows of which one value is 1 and the rest 0 are classes",
            classes,
            True,
            tuple(guessed),
        )
    several = params.rules != 1 and params.task == "auto" and values.shape[1:] > (1,)
    if params.task == "multilabel" or (
        several and _is_yes_or_no(values) and values.min() != values.max()
    ):
        guess = (
            f"{y.name} holds {values.shape[1]} labels of yes or no a sample (multi-label): learned "
            "by binary cross-entropy; set `task` to regression if they are numbers"
        )
        return Targets(
            "multilabel",
            int(values.shape[1]),
            "rows of 0 and 1 are several labels a sample",
            guessed=(guess,) if params.task == "auto" else (),
        )
    if params.task == "classification" or (params.task == "auto" and whole):
        labels = checked_labels(_squeezed(values), y.where) if values.dtype.kind == "f" else values
        renumber = params.rules != 1 and params.first_label == "auto"
        hint = "set `task` to regression, or to classification if they are classes all the same"
        classes = _classes(
            _squeezed(labels),
            y,
            renumber,
            params.first_label,
            hint if params.task == "auto" and params.rules != 1 else None,
        )
        return Targets(
            "classification", classes.count, classes.why, classes, guessed=classes.guessed
        )
    if values.ndim > 2 or y.shape[1:] == (0,):
        raise DataError(f"{y.where}: targets must be of shape (N,) or (N, K), not {y.shape}")
    outputs = 1 if values.ndim == 1 else int(values.shape[1])
    return Targets(
        "regression",
        outputs,
        "regression targets",
        guessed=_doubts(params, values, y),
        least=_least(values),
    )


def _classes(
    labels: Array, y: Member, renumber: bool, first: Literal["auto", 0, 1], hint: str | None
) -> Classes:
    if labels.ndim != 1 or labels.dtype.kind == "b":
        labels = checked_labels(labels, y.where)
    if first == 1:
        if labels.size and labels.min() < 1:
            raise SpecError("/params/first_label", f"{y.where}: label {labels.min()} is below 1")
        count = class_count(checked_labels(labels - 1, y.where), y.where)
        names = tuple(str(each + 1) for each in range(count))
        return Classes(count, names, "whole numbers from 1 are classes", 1)
    return classes_of(labels, y.where, renumber=renumber, hint=hint)


def _is_one_hot(values: Array) -> bool:
    if values.ndim != 2 or values.shape[1] < 2 or len(values) < 2:
        return False
    return bool(((values == 0) | (values == 1)).all() and (values.sum(1) == 1).all())


def _is_yes_or_no(values: Array) -> bool:
    return values.ndim == 2 and values.size > 0 and bool(((values == 0) | (values == 1)).all())


def _doubts(params: NpzParams, values: Array, y: Member) -> tuple[str, ...]:
    """Say what else regression targets could be."""
    if params.task != "auto" or params.rules == 1:
        return ()
    different = np.unique(values)
    if values.dtype.kind == "f" and len(different) <= _FEW and (different % 1 == 0).all():
        return (
            f"{y.name} holds {len(different)} different whole numbers stored as {values.dtype}: "
            "taken as a regression target; set `task` to classification if they are classes",
        )
    return ()


def converted(params: NpzParams, values: Array, targets: Targets, y: Member) -> Array:
    """Return targets after checking their values.

    Labels (N, *positions) int64, −100 where they are left out; numbers (N, K), of pixels
    (N, K, H, W), of steps (N, T, K).
    """
    if targets.positions or (targets.task == "classification" and targets.classes is None):
        return _converted_positions(params, values, targets, y)
    if targets.one_hot:
        if values.shape[1] != targets.outputs or not _is_one_hot(values):
            raise DataError(
                f"{y.where}: rows are not one-hot, as those of the training samples are"
            )
        labels: Array = values.argmax(1).astype(np.int64)
        return labels
    if targets.classes is not None:
        return targets.classes.codes(_squeezed(values), y.where)
    check_finite(values, y.where)
    if values.size != len(values) * targets.outputs:
        raise DataError(f"{y.where}: {y.shape} are not {targets.outputs} targets a sample")
    if targets.task == "multilabel" and not _is_yes_or_no(values):
        raise DataError(
            f"{y.where}: labels other than 0 and 1, which are all that the training samples have"
        )
    kind = np.float32 if targets.task == "multilabel" else np.float64
    return values.reshape(len(values), targets.outputs).astype(kind)


def _squeezed(values: Array) -> Array:
    return values[:, 0] if values.ndim == 2 and values.shape[1] == 1 else values


def _of_positions(
    params: NpzParams, values: Array, y: Member, positions: tuple[int, ...]
) -> Targets | None:
    """Return targets with one at each position; None where they are one a sample."""
    if not positions or values.ndim <= len(positions):
        return None
    own, sizes = y.shape[1:], len(positions)
    if own == positions:
        channels, last = 1, False
    elif len(own) == sizes + 1 and own[1:] == positions and sizes == 2:
        channels, last = own[0], False
    elif len(own) == sizes + 1 and own[:-1] == positions:
        channels, last = own[-1], sizes == 2
    elif values.ndim > 2 or own[:1] == positions[:1]:
        raise DataError(
            f"{y.where}: targets of shape {own} a sample; one at each position has the shape "
            f"{positions}, K numbers {(*positions, 'K')}"
        )
    else:
        return None
    where = "pixel" if sizes == 2 else "step"
    whole = values.dtype.kind in "iub"
    if channels == 1 and (params.task == "classification" or (params.task == "auto" and whole)):
        return _labels(params, values.reshape(len(values), *positions), y, positions)
    if params.task == "classification":
        raise SpecError(
            "/params/task", f"{y.where}: {channels} numbers at each {where} are no classes"
        )
    if params.ignore_index is not None:
        raise SpecError("/params/ignore_index", f"{y.where}: only classes can be left out")
    if params.task == "multilabel":
        if not bool(((values == 0) | (values == 1)).all()):
            raise SpecError("/params/task", f"{y.where}: multilabel needs values of 0 and 1")
        why = f"{channels} labels of yes or no at each {where}"
        return Targets("multilabel", channels, why, positions=positions, channels_last=last)
    why = f"{channels} number{'s' * (channels > 1)} at each {where}"
    return Targets(
        "regression", channels, why, positions=positions, channels_last=last, least=_least(values)
    )


def _labels(params: NpzParams, labels: Array, y: Member, positions: tuple[int, ...]) -> Targets:
    """Return classes, of which some may be left out."""
    counted = _counted(params, labels, y)
    if not counted.size:
        raise DataError(f"{y.where}: every label is {params.ignore_index}, which is left out")
    low, high = int(counted.min()), int(counted.max())
    if low < 0 or high >= MAX_CLASSES:
        raise DataError(
            f"{y.where}: label {low if low < 0 else high} is out of range; labels run from 0, and "
            "`ignore_index` names what is left out"
        )
    if low == high:
        raise DataError(f"{y.where}: all labels are {low}; at least two classes are needed")
    left_out = labels.size - counted.size
    guessed = []
    if positions:
        what = "pixel" if len(positions) == 2 else "step"
        guessed.append(
            f"{y.name} holds a class for each {what}; set `task` to regression if they are numbers"
        )
    if params.ignore_index is not None:
        guessed.append(f"{left_out} of {labels.size} labels are {params.ignore_index}: left out")
    why = "whole numbers are classes" + (f", at each of {positions}" if positions else "")
    return Targets("classification", high + 1, why, guessed=tuple(guessed), positions=positions)


def _counted(params: NpzParams, labels: Array, y: Member) -> Array:
    if labels.dtype.kind not in "iub":
        if not bool((np.isfinite(labels) & (labels % 1 == 0)).all()):
            raise DataError(f"{y.where}: labels must be whole numbers")
        labels = labels.astype(np.int64)
    kept: Array = labels if params.ignore_index is None else labels[labels != params.ignore_index]
    return kept.astype(np.int64)


def _converted_positions(params: NpzParams, values: Array, targets: Targets, y: Member) -> Array:
    shape, size = targets.positions, int(np.prod(targets.positions, dtype=np.int64))
    numbers = 1 if targets.task == "classification" else targets.outputs
    if values.size != len(values) * size * numbers:
        raise DataError(f"{y.where}: {y.shape} are not targets of shape {shape} a sample")
    if targets.task == "classification":
        labels = values.reshape(len(values), *shape)
        counted = _counted(params, labels, y)
        if counted.size and not 0 <= counted.min() <= counted.max() < targets.outputs:
            raise DataError(
                f"{y.where}: labels from {counted.min()} to {counted.max()}; those of the training "
                f"samples run from 0 to {targets.outputs - 1}"
            )
        found = labels.astype(np.int64)
        if params.ignore_index is not None:
            found = np.where(labels == params.ignore_index, IGNORED, found)
        return found
    check_finite(values, y.where)
    if targets.task == "multilabel" and not bool(((values == 0) | (values == 1)).all()):
        raise DataError(f"{y.where}: labels other than 0 and 1")
    if len(shape) == 2:
        last = values.reshape(len(values), *shape, numbers) if targets.channels_last else None
        moved = values if last is None else last.transpose(0, 3, 1, 2)
        values = moved.reshape(len(values), numbers, *shape)
    else:
        values = values.reshape(len(values), *shape, numbers)
    kind = np.float32 if targets.task == "multilabel" else np.float64
    return np.ascontiguousarray(values, dtype=kind)


def _least(values: Array) -> float | None:
    least = float(values.min()) if values.size else 0.0
    return least if np.isfinite(least) else None
