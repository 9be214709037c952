"""From a claimed run to what its trainer is told: folders, files and threads filled in."""

from pathlib import Path
from typing import Any

from sqlalchemy.orm import Session

from mlhf_service.datasets.service import resolve
from mlhf_service.meta_checkpoints import service as meta_checkpoints
from mlhf_service.meta_checkpoints.service import UNTRAINED
from mlhf_service.queue.leases import Claim
from mlhf_service.queue.trainer_process import checkpoint_name
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage


def prepare(
    session: Session, settings: Settings, storage: FolderStorage, claim: Claim
) -> tuple[dict[str, Any], dict[str, Path]]:
    """The engine's configuration, and the files to lay into the trainer's folder.

    Raises SpecError where a data set or a meta-checkpoint is no longer there.
    """
    config = dict(claim.config)
    files: dict[str, Path] = {}

    def located(dataset: dict[str, Any]) -> dict[str, Any]:
        found = resolve(session, settings, storage, dataset["name"], dataset.get("params", {}))
        root = str(found.root) if found.root else None
        return {"name": found.family, "params": found.params, "root": root}

    def laid(identity: str) -> str:
        # A copy under its id: the run's own record of its configuration names no path of ours.
        name = f"{identity}.safetensors"
        files[name] = meta_checkpoints.path_of(session, storage, identity)
        return name

    if claim.kind == "meta_train":
        config["tasks"] = [
            {**task, "dataset": located(task["dataset"])} for task in config["tasks"]
        ]
        if config.get("start"):
            config["start"] = laid(config["start"])
    else:
        config["dataset"] = located(config["dataset"])
        params = config["optimizer"].get("params", {})
        if params.get("meta_checkpoint", UNTRAINED) != UNTRAINED:
            named = {**params, "meta_checkpoint": laid(params["meta_checkpoint"])}
            config["optimizer"] = {**config["optimizer"], "params": named}
    # A resumed run keeps the threads it began with: sums depend on their number.
    config["threads"] = claim.threads or config.get("threads") or settings.trainer_threads
    checkpoint = checkpoint_name(claim)
    if checkpoint is not None and claim.checkpoint is not None:
        files[checkpoint] = storage.path(claim.checkpoint.storage_key)
    return config, files
