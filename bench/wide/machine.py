"""How fast a machine is at a task: what a step of AdamW takes on it, in CPU seconds.

So runs made on another machine, or in a slower hour, can stand beside those that are there.
"""

from pathlib import Path

from bench.wide.contenders import REFERENCE, contender
from bench.wide.task import WideTask
from mlhf.core.budget import Budget
from mlhf.core.events import Event
from mlhf.training.config import Evaluation

STEP_SECONDS = "reference_step_seconds"  # in a row's environment
_WALL_SECONDS = 1.5
_EVERY = 5  # steps between two readings
_SAMPLES = 16  # that a reading is evaluated on


def reference_step(task: WideTask, data: Path, cache: Path) -> float:
    """Train with AdamW for a moment; return the CPU seconds of a step after the first few."""
    from mlhf.training.run import train

    config = task.config(data, cache, contender(REFERENCE).optimizer, {}, 0)
    epoch = max(1, -(-task.train_samples // task.batch_size))
    config = config.model_copy(
        update={
            "budget": Budget(wall_seconds=_WALL_SECONDS),
            "evaluation": Evaluation(every_epochs=_EVERY / epoch, max_samples=_SAMPLES),
        }
    )
    readings: dict[int, float] = {}

    def on_event(event: Event) -> None:
        for point in event["points"] if event["type"] == "points" else ():
            readings[point["step"]] = point["cpu_seconds"]

    train(config, on_event, checkpoint_seconds=None, data_cache=cache / "decoded")
    begun, *_, end = (step for step in sorted(readings) if step)
    return (readings[end] - readings[begun]) / (end - begun)
