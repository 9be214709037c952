"""All optimizers of a kind of network side by side: the tables to begin with."""

from collections.abc import Sequence

from bench.judge.grids import ENTRANTS
from bench.judge.measures import train_losses
from bench.judge.results import TaskResults
from mlhf.ablation.statistics import mean

_TOGETHER = (("mlp",), ("convnet", "resnet"), ("text",))  # families in one table
_EPOCHS = (2, 5, 10)  # and the last


def overview(judged: Sequence[TaskResults]) -> list[dict[str, str]]:
    """Return rows, a column for each task: mean training losses at some epochs' ends.

    With them the milliseconds of a step, the mean of a run's first 240 measured in turns,
    and how many seeds.
    """
    columns = {r.judged.name: _heading(r) for r in judged}
    rows = []
    for each in ENTRANTS:
        found = [r for r in judged if each.name in r.curves]
        if found:
            cells = {columns[r.judged.name]: _cell(r, each.name) for r in found}
            rows.append({"optimizer": each.name, **dict.fromkeys(columns.values(), "–"), **cells})
    return rows


def together(judged: Sequence[TaskResults]) -> list[list[TaskResults]]:
    """Return the tasks that were run, those of one table together."""
    found = [[r for r in judged if r.judged.family in of and r.curves] for of in _TOGETHER]
    return [each for each in found if each]


def _heading(results: TaskResults) -> str:
    at = " / ".join(str(epoch) for epoch in _marks(results))
    return f"{results.judged.name}, epochs {at} (ms a step) [seeds]"


def _marks(results: TaskResults) -> list[int]:
    last = round(results.judged.epochs)
    return [*(epoch for epoch in _EPOCHS if epoch < last), last]


def _cell(results: TaskResults, name: str) -> str:
    losses = [train_losses(curve) for curve in results.curves[name].values()]
    means = [
        mean([each[epoch] if epoch < len(each) else float("inf") for each in losses])
        for epoch in _marks(results)
    ]
    pace = results.pace.get(name)
    took = "–" if pace is None else f"{pace.mean:.1f}"
    return f"{' / '.join(map(_loss, means))} ({took}) [{len(losses)}]"


def _loss(value: float) -> str:
    return "diverged" if value == float("inf") else f"{value:#.3g}"
