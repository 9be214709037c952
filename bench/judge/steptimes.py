"""What steps take, everybody measured in turns.

Runs of several sittings share a machine with whatever else runs: their seconds do not compare
well. Here all take turns of a run's first steps, several times, and the median of the turns
is kept at each of some steps: what a second-order optimizer renews often at first, and ever
less later, counts when it is done. The Hessian-free peers take several times as long as all
others and are measured once, before them: minutes between two that are compared would let a
shared machine change.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from bench.harness.contract import Context
from bench.judge.pace import Pace
from bench.judge.runs import Run
from mlhf.core import atomic_files
from mlhf.core.budget import Budget
from mlhf.core.events import Event, encode
from mlhf.training.config import Evaluation

_MARKS = (20, 60, 120, 240)  # whole rounds of what is done every tenth step
_TURNS = 5
_ONCE = "hessian free"  # rank of those measured in the first turn alone


def measure(context: Context, task: str, runs: Sequence[Run]) -> bool:
    """Measure the runs' entrants in turns and keep what came out; False if time was up."""
    found: dict[str, list[dict[str, float]]] = {run.entrant.name: [] for run in runs}
    once = [run for run in runs if run.entrant.rank == _ONCE]
    others = [run for run in runs if run.entrant.rank != _ONCE]
    for turn in range(_TURNS):
        context.say(f"{task}: step times, turn {turn + 1} of {_TURNS}")
        for run in others if turn else [*once, *others]:
            if context.stop():
                return False
            found[run.entrant.name].append(_milliseconds(context, run))
    path = _path(context.output, task)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    atomic_files.write(path, encode({**before, **found}))
    return True


def load(output: Path, task: str) -> Mapping[str, Pace]:
    """Return the pace of each entrant, empty where nobody was measured."""
    path = _path(output, task)
    if not path.exists():
        return {}
    found: Mapping[str, Sequence[Mapping[str, float]]] = json.loads(
        path.read_text(encoding="utf-8")
    )
    return {name: _pace(turns) for name, turns in found.items()}


def _pace(turns: Sequence[Mapping[str, float]]) -> Pace:
    marks = list(turns[0])
    return Pace([int(m) for m in marks], [median(turn[m] for turn in turns) for m in marks])


def _milliseconds(context: Context, run: Run) -> dict[str, float]:
    """Return what a run has taken by each mark.

    The first step is counted as those after it: it also imports and allocates.
    """
    from mlhf.training.run import train

    config = run.config(context).model_copy(
        update={
            "budget": Budget(steps=_MARKS[-1], epochs=run.judged.epochs),
            "evaluation": Evaluation(every_epochs=100_000, max_samples=1),
        }
    )
    at: dict[int, float] = {}

    def note(told: Event) -> None:
        points: list[dict[str, Any]] = told["points"] if told["type"] == "points" else []
        at.update({p["step"]: p["wall_seconds"] for p in points})

    train(config, note, checkpoint_seconds=None)
    marks = [m for m in _MARKS if m in at] or [max(at)]
    first = (at[marks[0]] - at[1]) / max(marks[0] - 1, 1)
    return {str(m): 1e3 * (at[m] - at[1] + first) for m in marks}


def _path(output: Path, task: str) -> Path:
    return output / "times" / f"{task}.json"
