"""From a task and an optimizer to the configuration of a run."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.experiments.contract import Context, Task
from engine.training.checkpoint import measure
from engine.training.config import Component, DatasetSource, TrainConfig

_LEARNED = ("mlhf", "l2l")


def train_config(
    context: Context,
    task: Task,
    optimizer: str,
    params: Mapping[str, Any],
    seed: int,
    batch_size: int | None = None,
) -> TrainConfig:
    """Return one run's configuration; learned optimizers get the context's meta-checkpoint."""
    learned = {"meta_checkpoint": context.meta_checkpoint} if optimizer in _LEARNED else {}
    return TrainConfig(
        model=task.model,
        dataset=DatasetSource(**task.dataset.model_dump(), root=context.root(task.dataset)),
        optimizer=Component(name=optimizer, params={**params, **learned}),
        budget=task.budget,
        batch_size=batch_size or task.batch_size,
        seed=seed,
        evaluation=task.evaluation,
        device=context.device,
        threads=context.threads,
    )


def identity(config: TrainConfig) -> dict[str, Any]:
    """Return what makes a run this run and no other, as JSON values.

    Where files lie does not, so that a run may go on on another machine: the data's folder is
    left out, and a meta-checkpoint counts by its content.
    """
    document = config.model_dump(mode="json")
    document["dataset"].pop("root")
    params = document["optimizer"]["params"]
    name = params.get("meta_checkpoint", "default")
    if name != "default" and Path(name).is_file():
        params["meta_checkpoint"] = measure(Path(name))[1]
    return document
