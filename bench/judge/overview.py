"""The tables at the head of a report: all optimizers of a kind of network side by side."""

from collections.abc import Sequence

from bench.judge.contenders import CONTENDERS
from bench.judge.measures import train_losses
from bench.judge.results import TaskResults
from mlhf.ablation.statistics import mean

_TOGETHER = (("mlp",), ("convnet", "resnet"), ("text",))  # families in one table
_EPOCHS = (2, 5, 10)  # and the last


def overview(results: Sequence[TaskResults]) -> list[dict[str, str]]:
    """Return rows with a column for each task: mean training losses at the end of some epochs.

    With them the milliseconds of a step (the mean of the first 240, measured in turns) and the
    number of seeds.
    """
    columns = {r.task.name: _heading(r) for r in results}
    rows = []
    for each in CONTENDERS:
        found = [r for r in results if each.name in r.curves]
        if found:
            cells = {columns[r.task.name]: _cell(r, each.name) for r in found}
            rows.append({"optimizer": each.name, **dict.fromkeys(columns.values(), "–"), **cells})
    return rows


def together(results: Sequence[TaskResults]) -> list[list[TaskResults]]:
    """Return the tasks that were run, grouped by table."""
    found = [[r for r in results if r.task.family in of and r.curves] for of in _TOGETHER]
    return [each for each in found if each]


def _heading(results: TaskResults) -> str:
    at = " / ".join(str(epoch) for epoch in _marks(results))
    return f"{results.task.name}, epochs {at} (ms a step) [seeds]"


def _marks(results: TaskResults) -> list[int]:
    last = round(results.task.epochs)
    return [*(epoch for epoch in _EPOCHS if epoch < last), last]


def _cell(results: TaskResults, name: str) -> str:
    losses = [train_losses(curve) for curve in results.curves[name].values()]
    means = [
        mean([each[epoch] if epoch < len(each) else float("inf") for each in losses])
        for epoch in _marks(results)
    ]
    timing = results.timing.get(name)
    took = "–" if timing is None else f"{timing.mean:.1f}"
    return f"{' / '.join(map(_loss, means))} ({took}) [{len(losses)}]"


def _loss(value: float) -> str:
    return "diverged" if value == float("inf") else f"{value:#.3g}"
