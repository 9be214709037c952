"""Find what a run reads, when it is about to start: its data set and its meta-checkpoint."""

from pathlib import Path
from typing import Any

from mlhf.optimizers.learned.families import UNTRAINED
from mlhf_service.context import Context
from mlhf_service.datasets.resolve import resolve_dataset
from mlhf_service.jobs.kinds.protocol import Prepared
from mlhf_service.meta_checkpoints import service as meta_checkpoints
from mlhf_service.networks import service as networks


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
    model, of_model = staged_model(context, config["model"])
    files |= of_model
    # A run of a version that knew no choice goes on as it began.
    evaluation = {"samples": "all", **config.get("evaluation", {})}
    if evaluation.get("max_samples") is not None:
        evaluation.pop("samples")
    config = {**config, "evaluation": evaluation}
    config = {**config, "model": model, "dataset": dataset, "optimizer": optimizer}
    return Prepared(config, files)


def dataset_source(context: Context, dataset: dict[str, Any]) -> dict[str, Any]:
    """A data set as the engine's ``DatasetSource``: its family, parameters, folder and digest."""
    found = resolve_dataset(context, dataset["name"], dataset.get("params", {}))
    root = found.files()
    return {
        "name": found.family,
        "params": found.params,
        "root": str(root) if root else None,
        "sha256": found.sha256,
    }


def staged_model(context: Context, model: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Path]]:
    """A model as the engine finds it, and the files to copy into the trainer's folder."""
    identity = model.get("params", {}).get("network")
    if model["name"] != "graph" or identity is None:
        return model, {}
    graph, weights = networks.paths_of(context.session, context.storage, identity)
    files = {f"{identity}.json": graph}
    if weights is not None:
        files[f"{identity}.safetensors"] = weights
    return {**model, "params": {**model["params"], "network": f"{identity}.json"}}, files


def staged_file(context: Context, identity: str) -> tuple[str, Path]:
    """The name of a meta-checkpoint in the trainer's folder, and the file to copy there.

    The copy is named by its id, so that the run's recorded configuration holds no path.
    """
    path = meta_checkpoints.path_of(context.session, context.storage, identity)
    return f"{identity}.safetensors", path
