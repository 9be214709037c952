"""From a task and an optimizer to the configuration of a run."""

import hashlib
from collections.abc import Mapping
from typing import Any

from bench.harness.contract import Context, Task
from mlhf.core.config import Component, DatasetSource
from mlhf.optimizers.learned.families import UNTRAINED, family_of
from mlhf.optimizers.learned.meta_checkpoint import load_meta_checkpoint
from mlhf.training.config import TrainConfig

_LEARNED = ("mlhf", "l2l")


def train_config(
    context: Context,
    task: Task,
    optimizer: str,
    params: Mapping[str, Any],
    seed: int,
    batch_size: int | None = None,
) -> TrainConfig:
    """Return one run's configuration.

    Learned optimizers get the context's meta-checkpoint, where ``params`` names none.
    """
    learned = {"meta_checkpoint": context.meta_checkpoint} if optimizer in _LEARNED else {}
    return TrainConfig(
        model=task.model,
        dataset=DatasetSource(**task.dataset.model_dump(), root=context.root(task.dataset)),
        optimizer=Component(name=optimizer, params={**learned, **params}),
        budget=task.budget,
        batch_size=batch_size or task.batch_size,
        seed=seed,
        evaluation=task.evaluation,
        device=context.device,
        threads=context.threads,
    )


def identity(config: TrainConfig, *, defaults: bool = True) -> dict[str, Any]:
    """Return what makes a run this run and no other, as JSON values.

    With ``defaults=False`` fields that are at theirs are left out, so that a field that a later
    version adds makes no other run of what is already done.

    Where files lie does not, so that a run may go on on another machine: the data's folder is
    left out, and a meta-checkpoint counts by its content. The shipped one does too: another
    version's is another run.
    """
    document = config.model_dump(mode="json", exclude_defaults=not defaults)
    document["dataset"].pop("root", None)
    if not document["optimizer"].get("params"):
        return document
    params = document["optimizer"]["params"]
    name = params.get("meta_checkpoint", UNTRAINED)
    if name != UNTRAINED:
        params["meta_checkpoint"] = _digest(str(name), family_of(config.optimizer.name, params))
    return document


def _digest(name: str, family: str) -> str:
    """Return the sha256 of what a meta-checkpoint's networks learned."""
    digest = hashlib.sha256()
    for network, weights in sorted(load_meta_checkpoint(name, family).weights.items()):
        for key, tensor in sorted(weights.items()):
            digest.update(f"{network}.{key} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
