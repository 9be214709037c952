"""NumPy arrays in an .npz file. Pickles are never loaded; headers are checked before arrays."""

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mlhf.core.errors import DataError, SpecError
from mlhf.data import files
from mlhf.data.arrays import (
    Array,
    Arrays,
    Split,
    check_finite,
    checked_weights,
    held_out,
    held_out_count,
    subset_indices,
    subset_size,
)
from mlhf.data.info import DataInfo, Kind
from mlhf.data.npz_file import Member
from mlhf.data.npz_members import Members, SplitMembers, open_members
from mlhf.data.npz_report import report
from mlhf.data.npz_targets import Targets, converted, targets_of
from mlhf.data.params import NpzParams
from mlhf.data.report import Inspection, Progress

_MOST_TOKENS = 1_000_000


@dataclass(frozen=True)
class _Layout:
    """What the inputs are.

    Attributes:
        shape: Of one input, channels first.
        channels_last: The file has them last.
    """

    kind: Kind
    shape: tuple[int, ...]
    channels_last: bool = False

    @property
    def positions(self) -> tuple[int, ...]:
        """Where a sample can have a target each."""
        if self.kind == "image":
            return self.shape[1:]
        return self.shape[:1] if self.kind in ("text", "sequence") else ()


def describe(params: NpzParams, root: Path | None) -> DataInfo:
    """Read headers, and the targets."""
    members = open_members(params, root)
    return _info(params, members, _targets(params, members))


def validate(params: NpzParams, root: Path | None) -> DataInfo:
    """Read everything, a few rows at a time."""
    return inspect(params, root).info


def inspect(params: NpzParams, root: Path | None, progress: Progress | None = None) -> Inspection:
    """Read everything, a few rows at a time, and report the arrays."""
    members = open_members(params, root)
    targets = _targets(params, members)
    info = _info(params, members, targets)
    done, total = 0, sum(each.x.shape[0] for each in members.splits)
    labels: list[dict[str, Array]] = []
    for split in members.splits:
        for chunk in split.x.chunks():
            check_finite(chunk, split.x.where)
            done += len(chunk)
            if progress is not None:
                progress(done, total)
        _weights(split)
        labels.append(
            {
                n: converted(_of_target(params, n, y), y.load(), targets[n], y)
                for n, y in split.y.items()
            }
        )
    return Inspection(info, report(params, members, info, targets, labels))


def read(params: NpzParams, root: Path | None) -> Arrays:
    """Return inputs and targets."""
    members = open_members(params, root)
    targets = _targets(params, members)
    info = _info(params, members, targets)
    train = _load(members.train, params, info, targets)
    if members.test is not None:
        test = _load(members.test, params, info, targets)
    else:
        rows, test_rows = held_out(members.train.x.shape[0], params.test_fraction)
        train, test = train.taken(rows), train.taken(test_rows)
    return Arrays(
        info,
        _subset(train, params.train_samples, "train_samples"),
        _subset(test, params.test_samples, "test_samples"),
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of the file."""
    path = files.only_file(root, (".npz",))
    return files.digest([path], path)


def _targets(params: NpzParams, members: Members) -> dict[str, Targets]:
    """Return what each target is, by the training samples."""
    layout = _layout(members.train.x, params)
    if "" not in members.train.y and params.task != "auto":
        raise SpecError(
            "/params/task", "there are several targets, each of a task of its own; leave it out"
        )
    found = {
        name: targets_of(_of_target(params, name, y), y.load(), y, layout.positions)
        for name, y in members.train.y.items()
    }
    if members.test is None:
        return found
    for name, each in found.items():
        if each.least is not None:
            least = members.test.y[name].load().min(initial=each.least)
            found[name] = each.with_least(float(least))
    return found


def _of_target(params: NpzParams, name: str, y: Member) -> NpzParams:
    """The parameters that one of several targets has: numbers among them leave out no label."""
    if not name or y.dtype.kind in "iu":
        return params
    return params.model_copy(update={"ignore_index": None})


def _info(params: NpzParams, members: Members, targets: dict[str, Targets]) -> DataInfo:
    x, test = members.train.x, members.test
    layout = _layout(x, params)
    if test is None:
        test_count = held_out_count(x.shape[0], params.test_fraction)
        train_count = x.shape[0] - test_count
    else:
        train_count, test_count = x.shape[0], test.x.shape[0]
    heads = {name: each.info for name, each in targets.items() if name}
    single = targets.get("")
    by_position = single is not None and bool(single.positions)
    return DataInfo(
        kind=layout.kind,
        input_shape=layout.shape,
        outputs=single.outputs
        if single
        else sum(head.outputs * math.prod(head.positions) for head in heads.values()),
        task=single.task if single else "heads",
        train_samples=subset_size(train_count, params.train_samples, "train_samples"),
        test_samples=subset_size(test_count, params.test_samples, "test_samples"),
        vocabulary=_vocabulary(members) if layout.kind == "text" else None,
        class_names=single.info.class_names if single else None,
        positions=single.positions if single and (by_position or layout.kind == "text") else None,
        weighted=members.train.weights is not None,
        least=single.least if single else None,
        heads=heads,
    )


def _vocabulary(members: Members) -> int:
    """Return how many tokens there are, after checking them."""
    most = 0
    for split in members.splits:
        for chunk in split.x.chunks():
            if chunk.min() < 0 or chunk.max() >= _MOST_TOKENS:
                raise DataError(
                    f"{split.x.where}: tokens must be from 0 to {_MOST_TOKENS - 1:,}, not "
                    f"{chunk.min()} to {chunk.max()}"
                )
            most = max(most, int(chunk.max()))
    return most + 1


def _subset(split: Split, wanted: int | None, parameter: str) -> Split:
    rows = subset_indices(split.samples, wanted, parameter)
    return split if len(rows) == split.samples else split.taken(rows)


def _load(
    members: SplitMembers, params: NpzParams, info: DataInfo, targets: dict[str, Targets]
) -> Split:
    """Return inputs as (N, C, H, W), (N, F), (N, T, F) or (N, T), with targets and weights."""
    layout = _layout(members.x, params)
    inputs = members.x.load()
    check_finite(inputs, members.x.where)
    if layout.channels_last:
        inputs = np.ascontiguousarray(inputs.transpose(0, 3, 1, 2))
    if info.kind == "text":
        inputs = inputs.astype(np.int64)
    elif info.kind in ("table", "sequence"):
        inputs = inputs.astype(np.float64)
    elif inputs.dtype != np.uint8:
        inputs = inputs.astype(np.float32)
    found = {
        n: converted(_of_target(params, n, y), y.load(), targets[n], y)
        for n, y in members.y.items()
    }
    return Split(inputs.reshape(-1, *layout.shape), found.get("", found), _weights(members))


def _weights(members: SplitMembers) -> Array | None:
    if members.weights is None:
        return None
    return checked_weights(members.weights.load(), members.weights.where)


def _layout(x: Member, params: NpzParams) -> _Layout:
    """Return what the inputs are, by their shape and the parameters."""
    sizes, wanted = x.shape[1:], params.inputs
    if wanted == "tokens":
        if len(sizes) != 1 or x.dtype.kind not in "iu":
            raise SpecError(
                "/params/inputs",
                f"{x.where}: {x.dtype} {x.shape} are no tokens: whole numbers (N, T)",
            )
        return _Layout("text", sizes)
    if wanted == "sequence":
        if len(sizes) not in (1, 2):
            raise SpecError(
                "/params/inputs", f"{x.where}: {x.shape} are no sequences: (N, T, F) or (N, T)"
            )
        return _Layout("sequence", sizes if len(sizes) == 2 else (*sizes, 1))
    if len(sizes) == 1:
        return _Layout("table", sizes)
    if len(sizes) == 2:
        return _Layout("image", (1, *sizes))
    if len(sizes) != 3:
        raise DataError(
            f"{x.where}: shape {x.shape} is neither a table (N, F) nor images (N, H, W), "
            "(N, C, H, W) or (N, H, W, C)"
        )
    usual = (1, 3, 4)
    hwc = params.layout == "hwc" or (
        params.layout == "auto" and sizes[2] in usual and sizes[0] not in usual
    )
    return _Layout("image", (sizes[2], *sizes[:2]) if hwc else sizes, hwc)
