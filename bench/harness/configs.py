"""The configuration of a run from a task and an optimizer, and its identity."""

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

    Learned optimizers get the context's meta-checkpoint if ``params`` names none.
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
    """Return the identity of a run, as JSON values: equal identities are the same run.

    With ``defaults=False`` fields at their defaults are left out, so that a field added by a
    later version does not change the identity of finished runs.

    Paths are no part of it, so that a run may resume on another machine: the folder of the data
    is left out, and a meta-checkpoint counts by its content, the shipped one too.
    """
    document = config.model_dump(mode="json", exclude_defaults=not defaults)
    document["dataset"].pop("root", None)
    if config.evaluation.samples == "all" or config.evaluation.max_samples is not None:
        # As it was before there was a choice.
        for name in ("samples", "share"):
            document.get("evaluation", {}).pop(name, None)
        if not document.get("evaluation"):
            document.pop("evaluation", None)
    if not document["optimizer"].get("params"):
        return document
    params = document["optimizer"]["params"]
    name = params.get("meta_checkpoint", UNTRAINED)
    if name != UNTRAINED:
        params["meta_checkpoint"] = _digest(str(name), family_of(config.optimizer.name, params))
    return document


def _digest(name: str, family: str) -> str:
    """Return the sha256 of a meta-checkpoint's weights."""
    digest = hashlib.sha256()
    for network, weights in sorted(load_meta_checkpoint(name, family).weights.items()):
        for key, tensor in sorted(weights.items()):
            digest.update(f"{network}.{key} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()
