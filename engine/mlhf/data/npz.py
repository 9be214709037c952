"""NumPy arrays in an .npz file. Pickles are never loaded; headers are checked before arrays."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    check_finite,
    checked_labels,
    class_count,
    held_out,
    held_out_count,
    subset_indices,
    subset_size,
)
from mlhf.data.info import DataInfo, Task
from mlhf.data.labels import Classes, classes_of
from mlhf.data.npz_file import Member, listed, member
from mlhf.data.params import NpzParams
from mlhf.data.report import (
    MOST_LISTED,
    SAMPLE_ROWS,
    ClassReport,
    ColumnReport,
    Inspection,
    Progress,
    Report,
    SplitReport,
    class_reports,
    held_out_split,
)

_MAX_AXIS = 65_536
# Different whole numbers among decimal targets that look like classes.
_FEW = 20


@dataclass(frozen=True)
class _Members:
    """The arrays of both splits; ``test`` is None where it is to be split off."""

    train: tuple[Member, Member]
    test: tuple[Member, Member] | None
    unused: tuple[str, ...] = ()


@dataclass(frozen=True)
class _Targets:
    """What the targets were taken for.

    Attributes:
        one_hot: They are rows of which one value is 1 and the rest 0.
        classes: Of classification, what the labels stand for.
    """

    task: Task
    outputs: int
    why: str
    classes: Classes | None = None
    one_hot: bool = False
    guessed: tuple[str, ...] = ()


def describe(params: NpzParams, root: Path | None) -> DataInfo:
    """Read headers, and the targets."""
    members = _open(root)
    return _info(params, members, _targets(params, members.train[1].load(), members.train[1]))


def validate(params: NpzParams, root: Path | None) -> DataInfo:
    """Read everything, a few rows at a time."""
    return inspect(params, root).info


def inspect(params: NpzParams, root: Path | None, progress: Progress | None = None) -> Inspection:
    """Read everything, a few rows at a time, and report the arrays."""
    members = _open(root)
    y_train = members.train[1].load()
    targets = _targets(params, y_train, members.train[1])
    info = _info(params, members, targets)
    done, total = 0, sum(each[0].shape[0] for each in (members.train, members.test) if each)
    labels = []
    for x, y in filter(None, (members.train, members.test)):
        for chunk in x.chunks():
            check_finite(chunk, x.where)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        labels.append(_converted(y.load(), targets, y))
    return Inspection(info, _report(params, members, info, targets, labels))


def _report(
    params: NpzParams,
    members: _Members,
    info: DataInfo,
    targets: _Targets,
    labels: list[Array],
) -> Report:
    x, y = members.train
    whole = list(labels)
    if members.test is None:
        whole = [labels[0][rows] for rows in held_out(len(labels[0]), params.test_fraction)]
    names = ("train", "test")
    sources = [
        f"{x.name}, {y.name}",
        held_out_split(params.test_fraction)
        if members.test is None
        else ", ".join(member.name for member in members.test),
    ]
    shape = f"{x.dtype} of shape {x.shape}"
    if info.kind == "image":
        why = f"{shape}, taken as {info.input_shape} channels, height and width"
    else:
        why = f"{shape}, a row of numbers for each sample"
    report = Report(
        columns=[
            ColumnReport(
                name=x.name,
                role="input",
                type="image" if info.kind == "image" else "number",
                why=why,
                inputs=math.prod(info.input_shape),
            ),
            ColumnReport(
                name=y.name,
                role="target",
                type="class" if info.task == "classification" else "targets",
                why=f"{y.dtype} of shape {y.shape}: {targets.why}",
            ),
        ],
        label=y.name,
        splits=[
            SplitReport(name=name, samples=len(each), source=source)
            for name, each, source in zip(names, whole, sources, strict=True)
        ],
        guessed=list(targets.guessed),
        ignored=[f"array {name}" for name in members.unused],
    )
    if targets.classes is not None:
        texts = targets.classes.names or tuple(map(str, range(info.outputs)))
        report.classes = class_reports(texts, *whole)
    if info.task == "multilabel":
        report.classes = [
            ClassReport(
                name=str(at), train=int(whole[0][:, at].sum()), test=int(whole[1][:, at].sum())
            )
            for at in range(min(info.outputs, MOST_LISTED))
        ]
    report.sample = [{y.name: each.tolist()} for each in labels[0][:SAMPLE_ROWS]]
    return report


def _info(params: NpzParams, members: _Members, targets: _Targets) -> DataInfo:
    x, test = members.train[0], members.test
    kind, shape, _ = _layout(x, params)
    if test is None:
        test_count = held_out_count(x.shape[0], params.test_fraction)
        train_count = x.shape[0] - test_count
    else:
        train_count, test_count = x.shape[0], test[0].shape[0]
    return DataInfo(
        kind="table" if kind == "table" else "image",
        input_shape=shape,
        outputs=targets.outputs,
        task=targets.task,
        train_samples=subset_size(train_count, params.train_samples, "train_samples"),
        test_samples=subset_size(test_count, params.test_samples, "test_samples"),
        class_names=None if targets.classes is None else targets.classes.names,
    )


def read(params: NpzParams, root: Path | None) -> Arrays:
    """Return inputs and targets."""
    members = _open(root)
    targets = _targets(params, members.train[1].load(), members.train[1])
    info = _info(params, members, targets)
    train = _load(members.train, params, info, targets)
    if members.test is not None:
        test = _load(members.test, params, info, targets)
    else:
        rows, test_rows = held_out(members.train[0].shape[0], params.test_fraction)
        x, y = train
        train, test = (x[rows], y[rows]), (x[test_rows], y[test_rows])
    return Arrays(
        info,
        _split(train, subset_indices(len(train[0]), params.train_samples, "train_samples")),
        _split(test, subset_indices(len(test[0]), params.test_samples, "test_samples")),
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of the file."""
    path = files.only_file(root, (".npz",))
    return files.digest([path], path)


def _split(arrays: tuple[Array, Array], rows: Array) -> Split:
    x, y = arrays
    return Split(x, y) if len(rows) == len(x) else Split(x[rows], y[rows])


def _load(
    members: tuple[Member, Member], params: NpzParams, info: DataInfo, targets: _Targets
) -> tuple[Array, Array]:
    """Return the inputs as (N, C, H, W) or (N, F), and the targets."""
    x, y = members
    _, shape, hwc = _layout(x, params)
    inputs = x.load()
    check_finite(inputs, x.where)
    if hwc:
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    if inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float64 if info.kind == "table" else np.float32)
    elif info.kind == "table":
        inputs = inputs.astype(np.float64)
    return inputs.reshape(-1, *shape), _converted(y.load(), targets, y)


def _targets(params: NpzParams, values: Array, y: Member) -> _Targets:
    """Return the task and the number of outputs."""
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
        return _Targets(
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
        return _Targets(
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
        return _Targets(
            "classification", classes.count, classes.why, classes, guessed=classes.guessed
        )
    if values.ndim > 2 or y.shape[1:] == (0,):
        raise DataError(f"{y.where}: targets must be of shape (N,) or (N, K), not {y.shape}")
    outputs = 1 if values.ndim == 1 else int(values.shape[1])
    return _Targets("regression", outputs, "regression targets", guessed=_doubts(params, values, y))


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


def _converted(values: Array, targets: _Targets, y: Member) -> Array:
    """Return labels (N,) or targets (N, K) after checking their values."""
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


def _layout(x: Member, params: NpzParams) -> tuple[str, tuple[int, ...], bool]:
    """Return the kind, the shape of one input, and whether channels come last."""
    sizes = x.shape[1:]
    if len(sizes) == 1:
        return "table", sizes, False
    if len(sizes) == 2:
        return "image", (1, *sizes), False
    if len(sizes) != 3:
        raise DataError(
            f"{x.where}: shape {x.shape} is neither a table (N, F) nor images (N, H, W), "
            "(N, C, H, W) or (N, H, W, C)"
        )
    usual = (1, 3, 4)
    hwc = params.layout == "hwc" or (
        params.layout == "auto" and sizes[2] in usual and sizes[0] not in usual
    )
    return "image", (sizes[2], *sizes[:2]) if hwc else sizes, hwc


def _open(root: Path | None) -> _Members:
    """Read the headers of all arrays, and check that they fit together."""
    path = files.only_file(root, (".npz",))
    entries = listed(path)
    names = {name.removesuffix(".npy") for name in entries if name.endswith(".npy")}

    def pair(x: str, y: str) -> tuple[Member, Member]:
        members = tuple(member(path, entries[f"{name}.npy"]) for name in (x, y))
        return _checked(*members)

    if {"x_train", "y_train"} <= names:
        train, whole = pair("x_train", "y_train"), {"x_test", "y_test"} <= names
        test = pair("x_test", "y_test") if whole else None
        if test and (test[0].shape[1:], test[1].shape[1:]) != (
            train[0].shape[1:],
            train[1].shape[1:],
        ):
            raise DataError(f"{path.name}: train and test arrays differ in shape")
        if len({"x_test", "y_test"} & names) == 1:
            raise DataError(f"{path.name}: has only one of x_test and y_test")
    elif {"x", "y"} <= names:
        train, test = pair("x", "y"), None
    else:
        raise DataError(
            f"{path.name}: needs arrays x_train and y_train (and x_test, y_test), or x and y; "
            f"it has: {', '.join(sorted(names))[:500] or 'none'}"
        )
    held = [member for members in (train, test) if members for member in members]
    total = sum(math.prod(m.shape) * max(m.dtype.itemsize, 4) for m in held)
    if total > files.MAX_HELD_BYTES:
        raise DataError(
            f"{path.name}: its arrays take {total / 2**30:.1f} GiB; at most "
            f"{files.MAX_HELD_BYTES // 2**30} GiB are read"
        )
    used = {member.name for member in held}
    return _Members(train, test, tuple(sorted(names - used)))


def _checked(x: Member, y: Member) -> tuple[Member, Member]:
    """Check one split's shapes."""
    if len(x.shape) < 2 or len(y.shape) < 1:
        raise DataError(f"{x.where}: inputs need at least 2 axes, targets 1")
    if x.shape[0] != y.shape[0]:
        raise DataError(f"{x.where} has {x.shape[0]} rows, but {y.name} has {y.shape[0]}")
    if 0 in x.shape:
        raise DataError(f"{x.where}: empty, of shape {x.shape}")
    if max(x.shape[1:]) > _MAX_AXIS:
        raise DataError(f"{x.where}: shape {x.shape} has an axis above {_MAX_AXIS}")
    return x, y
