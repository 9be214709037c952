"""What a step takes, everybody measured in turns.

Runs of several sittings share a machine with whatever else runs: their seconds do not compare
well. Here all take turns of some steps, several times; the median of the turns is kept.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

from engine.experiments.contract import Context
from engine.experiments.judge.runs import Run
from engine.training import checkpoint
from engine.training.config import Budget, Evaluation
from engine.training.events import Event, encode

_WARM, _STEPS, _TURNS = 20, 40, 5  # 40: whole rounds of what is done every tenth step


def measure(context: Context, task: str, runs: Sequence[Run]) -> bool:
    """Measure the runs' entrants in turns and keep what came out; False if time was up."""
    found: dict[str, list[float]] = {run.entrant.name: [] for run in runs}
    for turn in range(_TURNS):
        context.say(f"{task}: step times, turn {turn + 1} of {_TURNS}")
        for run in runs:
            if context.stop():
                return False
            found[run.entrant.name].append(_milliseconds(context, run))
    path = _path(context.output, task)
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.parent.mkdir(exist_ok=True)
    checkpoint.write(path, encode({**before, **found}))
    return True


def load(output: Path, task: str) -> Mapping[str, float]:
    """Return the milliseconds a step of each entrant, empty where nobody was measured."""
    path = _path(output, task)
    if not path.exists():
        return {}
    found = json.loads(path.read_text(encoding="utf-8"))
    return {name: median(turns) for name, turns in found.items()}


def _milliseconds(context: Context, run: Run) -> float:
    from engine.training.loop import train

    config = run.config(context).model_copy(
        update={
            "budget": Budget(steps=_WARM + _STEPS),
            "evaluation": Evaluation(every_epochs=100_000, max_samples=1),
        }
    )
    at: dict[int, float] = {}

    def note(told: Event) -> None:
        points: list[dict[str, Any]] = told["points"] if told["type"] == "points" else []
        at.update({p["step"]: p["wall_seconds"] for p in points})

    train(config, note, checkpoint_seconds=None)
    last = max(at)
    return 1e3 * (at[last] - at[min(_WARM, last - 1)]) / (last - min(_WARM, last - 1))


def _path(output: Path, task: str) -> Path:
    return output / "times" / f"{task}.json"
