"""What the answer to an upload of NumPy arrays says of them."""

import math
from typing import Literal

from mlhf.data.arrays import Array, held_out
from mlhf.data.info import DataInfo
from mlhf.data.npz_members import Members
from mlhf.data.npz_targets import Targets
from mlhf.data.params import NpzParams
from mlhf.data.report import (
    SAMPLE_ROWS,
    ColumnReport,
    Report,
    SplitReport,
    class_reports,
    held_out_split,
    label_reports,
)

_SHAPES = {
    "image": "taken as {} channels, height and width",
    "table": "a row of numbers for each sample",
    "text": "a row of tokens for each sample",
    "sequence": "taken as {} steps and numbers of a step",
}
_MOST_SHOWN = 64  # values of a target


def report(
    params: NpzParams,
    members: Members,
    info: DataInfo,
    targets: dict[str, Targets],
    labels: list[dict[str, Array]],
) -> Report:
    """Return it.

    Args:
        labels: The converted targets of each split of the file.
    """
    x, y = members.train.x, members.train.y
    whole = list(labels)
    if members.test is None:
        (only,) = labels
        count = x.shape[0]
        whole = [
            {name: each[rows] for name, each in only.items()}
            for rows in held_out(count, params.test_fraction)
        ]
    names: tuple[Literal["train"], Literal["test"]] = ("train", "test")
    sources = [
        ", ".join(each.name for each in members.train),
        held_out_split(params.test_fraction)
        if members.test is None
        else ", ".join(each.name for each in members.test),
    ]
    why = f"{x.dtype} of shape {x.shape}, {_SHAPES[info.kind].format(info.input_shape)}"
    found = Report(
        columns=[
            ColumnReport(
                name=x.name,
                role="input",
                type="image" if info.kind == "image" else "number",
                why=why,
                inputs=math.prod(info.input_shape),
            ),
            *(
                ColumnReport(
                    name=each.name,
                    role="target",
                    type="class" if targets[name].task == "classification" else "targets",
                    why=f"{each.dtype} of shape {each.shape}: {targets[name].why}",
                )
                for name, each in y.items()
            ),
        ],
        label=next(iter(y.values())).name if len(y) == 1 else None,
        splits=[
            SplitReport(name=name, samples=len(next(iter(each.values()))), source=source)
            for name, each, source in zip(names, whole, sources, strict=True)
        ],
        guessed=[guess for each in targets.values() for guess in each.guessed],
        ignored=[f"array {name}" for name in members.unused],
    )
    if members.train.weights is not None:
        found.columns.append(
            ColumnReport(
                name=members.train.weights.name,
                role="weight",
                type="number",
                why="`sample_weights` names it: the samples' weights",
            )
        )
    if "" in targets:
        _count(found, targets[""], info, [each[""] for each in whole])
    found.sample = [
        {each.name: labels[0][name][at].tolist() for name, each in y.items()}
        for at in range(min(SAMPLE_ROWS, x.shape[0]))
        if all(labels[0][name][at].size <= _MOST_SHOWN for name in y)
    ]
    return found


def _count(found: Report, targets: Targets, info: DataInfo, labels: list[Array]) -> None:
    """Count classes or labels; of positions each counts."""
    if targets.task == "classification":
        names = info.class_names or tuple(map(str, range(info.outputs)))
        counted = [each[each >= 0] for each in labels]
        found.classes = class_reports(names, *counted)
    elif targets.task == "multilabel" and not targets.positions:
        found.classes = label_reports(tuple(map(str, range(info.outputs))), *labels)
