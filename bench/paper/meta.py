"""Meta-training before an experiment, in the same command."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from bench.harness.contract import Context
from bench.harness.runs import read_result, run_or_resume
from mlhf.core.config import Component
from mlhf.core.errors import DataError
from mlhf.core.events import OnEvent
from mlhf.meta.config import MetaTrainConfig
from mlhf.training.results import RunResult

_OF_JOBS = ("kind", "name", "tags", "resources")  # fields of a job that are no settings


def meta_trained(context: Context, recipe: Path) -> Path | None:
    """Return the meta-checkpoint of a recipe, meta-training if need be; None if time was up.

    Args:
        context: The run is in the folder ``meta`` of its output.
        recipe: A ``meta_train`` job's JSON file.

    Raises:
        DataError: If the file is no such job, or the folder holds the run of another recipe.
    """
    folder = context.output / "meta"
    config = _config(context, recipe)
    document = config.model_dump(mode="json")
    for task in document["tasks"]:
        task["dataset"].pop("root")
    if read_result(folder) is None and not context.stop():
        context.log(f"meta-training by {recipe.name} ...")

    def run(
        run_dir: Path, resume: str | None, on_event: OnEvent, should_stop: Callable[[], bool]
    ) -> RunResult:
        from mlhf.meta.run import meta_train

        done = meta_train(config, on_event, run_dir, resume, should_stop)
        return RunResult(done.status, done.reason, done.totals, done.summary)

    result = run_or_resume(folder, document, run, context.stop, keep=lambda _: True)
    if result is None:
        return None
    if result["status"] != "succeeded":
        raise DataError(f"meta-training {result['status']}: {result['reason']}")
    return folder / "artifacts" / "meta_checkpoint.safetensors"


def _config(context: Context, recipe: Path) -> MetaTrainConfig:
    try:
        job: dict[str, Any] = json.loads(recipe.read_text(encoding="utf-8"))
        if job.get("kind") != "meta_train":
            raise DataError(f"{recipe.name} is not a meta_train job.")
        settings = {name: value for name, value in job.items() if name not in _OF_JOBS}
        for task in settings["tasks"]:
            dataset = Component.model_validate(task["dataset"])
            task["dataset"] = {**task["dataset"], "root": context.root(dataset)}
        config = MetaTrainConfig.model_validate(
            {**settings, "device": context.device, "threads": context.threads}
        )
    except (OSError, ValueError, KeyError, AttributeError, ValidationError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{recipe} cannot be read as a meta_train job: {error}") from error
    if config.optimizer == "mlhf" and config.variant != "paper":
        raise DataError(
            f"{recipe.name} meta-trains the variant {config.variant}, but the experiments use the "
            'variant paper: give it "variant": "paper", or meta-train with mlhf.meta_train and '
            "judge the meta-checkpoint with python -m bench.judge --meta-checkpoint."
        )
    return config
