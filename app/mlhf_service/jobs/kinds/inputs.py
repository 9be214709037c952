"""Find what a run reads, when it is about to start: its data set and its meta-checkpoint."""

from pathlib import Path
from typing import Any

from mlhf.optimizers.learned.families import UNTRAINED
from mlhf_service.context import Context
from mlhf_service.datasets.resolve import resolve_dataset
from mlhf_service.jobs.kinds.protocol import Prepared
from mlhf_service.meta_checkpoints import service as meta_checkpoints


def prepare_training(context: Context, config: dict[str, Any]) -> Prepared:
    """Prepare a run whose configuration is an engine's ``TrainConfig``."""
    files = {}
    dataset = dataset_source(context, config["dataset"])
    optimizer = config["optimizer"]
    params = optimizer.get("params", {})
    identity = params.get("meta_checkpoint", UNTRAINED)
    if identity != UNTRAINED:
        name, files[name] = staged_file(context, identity)
        optimizer = {**optimizer, "params": {**params, "meta_checkpoint": name}}
    return Prepared({**config, "dataset": dataset, "optimizer": optimizer}, files)


def dataset_source(context: Context, dataset: dict[str, Any]) -> dict[str, Any]:
    """A data set as the engine's ``DatasetSource``: its family, parameters and folder."""
    found = resolve_dataset(context, dataset["name"], dataset.get("params", {}))
    root = str(found.root) if found.root else None
    return {"name": found.family, "params": found.params, "root": root}


def staged_file(context: Context, identity: str) -> tuple[str, Path]:
    """The name of a meta-checkpoint in the trainer's folder, and the file to copy there.

    The copy is named by its id, so that the run's recorded configuration holds no path.
    """
    path = meta_checkpoints.path_of(context.session, context.storage, identity)
    return f"{identity}.safetensors", path
