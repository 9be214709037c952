"""How long steps take, all contenders measured in turns.

Runs of several sessions share a machine with other work, so that their seconds do not compare
well. Here all contenders take turns at the first steps of a run, several times, and the median
over the turns is kept at a few marks. What a second-order optimizer does often at first, and
less often later, is thus counted when it is done.

The Hessian-free peers take several times as long as the others. They are measured once, before
the others: with minutes between two measurements a shared machine can change.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness.contract import Context
from bench.judge.runs import Run
from bench.judge.step_timing import StepTiming
from mlhf.core import atomic_files
from mlhf.core.budget import Budget
from mlhf.core.events import Event, encode
from mlhf.training.config import Evaluation

_MARKS = (20, 60, 120, 240)  # whole rounds of what is done every tenth step
_TURNS = 5
_ONCE = "hessian free"  # the category that is measured in the first turn alone


def measure(context: Context, task: str, runs: Sequence[Run]) -> bool:
    """Measure the contenders of the runs in turns and store the times; False if time was up."""
    times: dict[str, list[dict[str, float]]] = {run.contender.name: [] for run in runs}
    once = [run for run in runs if run.contender.category == _ONCE]
    others = [run for run in runs if run.contender.category != _ONCE]
    for turn in range(_TURNS):
        context.log(f"{task}: step times, turn {turn + 1} of {_TURNS}")
        for run in others if turn else [*once, *others]:
            if context.stop():
                return False
            times[run.contender.name].append(_milliseconds(context, run))
    path = _path(context.output, task)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    atomic_files.write(path, encode({**before, **times}))
    return True


def load(output: Path, task: str) -> Mapping[str, StepTiming]:
    """Return the timing of each contender, empty where none was measured."""
    path = _path(output, task)
    if not path.exists():
        return {}
    times: Mapping[str, Sequence[Mapping[str, float]]]
    times = json.loads(path.read_text(encoding="utf-8"))
    return {name: _timing(turns) for name, turns in times.items()}


def _timing(turns: Sequence[Mapping[str, float]]) -> StepTiming:
    marks = list(turns[0])
    return StepTiming([int(m) for m in marks], [median(turn[m] for turn in turns) for m in marks])


def _milliseconds(context: Context, run: Run) -> dict[str, float]:
    """Return the milliseconds of a run up to each mark.

    The first step also imports and allocates, so it counts as much as the later ones.
    """
    from mlhf.training.run import train

    config = run.config(context).model_copy(
        update={
            "budget": Budget(steps=_MARKS[-1], epochs=run.task.epochs),
            "evaluation": Evaluation(every_epochs=100_000, max_samples=1),
        }
    )
    at: dict[int, float] = {}

    def on_event(event: Event) -> None:
        points: list[dict[str, Any]] = event["points"] if event["type"] == "points" else []
        at.update({p["step"]: p["wall_seconds"] for p in points})

    train(config, on_event, checkpoint_seconds=None)
    marks = [m for m in _MARKS if m in at] or [max(at)]
    first = (at[marks[0]] - at[1]) / max(marks[0] - 1, 1)
    return {str(m): 1e3 * (at[m] - at[1] + first) for m in marks}


def _path(output: Path, task: str) -> Path:
    return output / "times" / f"{task}.json"
