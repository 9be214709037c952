"""Train one network as its configuration says."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mlhf.core import atomic_files
from mlhf.core.budget import Epoch, total_steps
from mlhf.core.checked import checked
from mlhf.core.errors import SpecError, under
from mlhf.core.events import OnEvent
from mlhf.core.seeds import derive
from mlhf.data.loading import Dataset, load
from mlhf.data.specs import digest
from mlhf.models import specs as models
from mlhf.models.build import build as build_model
from mlhf.models.files import save_model
from mlhf.models.loss import loss_name
from mlhf.optimizers import specs as optimizers
from mlhf.optimizers.registry import build as build_optimizer
from mlhf.training import environment
from mlhf.training.attempt import Attempt
from mlhf.training.batch_norm import check_batches, check_microbatches
from mlhf.training.clock import Clock
from mlhf.training.config import TrainConfig
from mlhf.training.execution import execute
from mlhf.training.reproducible import reproducible
from mlhf.training.results import RunResult
from mlhf.training.trainer import Trainer

_T = TypeVar("_T")


@dataclass(frozen=True)
class TrainResult(RunResult):
    """A training run's end.

    Attributes:
        model: The network, in evaluation mode, as the last step left it, or the average that
            its optimizer keeps.
        dataset: What it was trained on.
    """

    model: nn.Module
    dataset: Dataset


def train(
    config: TrainConfig | Mapping[str, Any],
    on_event: OnEvent | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float | None = 15.0,
    flush_seconds: float = 0.25,
    clock: Clock | None = None,
) -> TrainResult:
    """Run a configuration to its end, or until it is asked to stop.

    Args:
        config: The run, as ``TrainConfig`` or as JSON values.
        on_event: Called with every event (``mlhf.core.events``).
        run_dir: Where checkpoints and artifacts go; without it nothing is written.
        resume: A checkpoint to continue from, absolute or relative to ``run_dir``.
        should_stop: Asked after each step; once true it must stay true. The run then writes a
            checkpoint and ends as ``interrupted``.
        checkpoint_seconds: Least time between two checkpoints; None for none on the way.
        flush_seconds: Least time between two ``points`` events.
        clock: Counts the seconds; for tests.

    Raises:
        SpecError: where the configuration cannot be run.
        DataError: where the data set or the checkpoint cannot be read.
    """
    config = checked(TrainConfig, config)
    attempt = Attempt(on_event, run_dir, should_stop, checkpoint_seconds, flush_seconds, clock)
    device = environment.choose_device(config.device)
    with reproducible(config.threads, device):
        model, data = build_network(config, device)
        loss = loss_name(data.info)
        optimizer = _at(
            "/optimizer",
            lambda: build_optimizer(
                config.optimizer.name,
                config.optimizer.params,
                model,
                loss,
                total_steps=total_steps(config.budget, data.size("train"), config.batch_size),
                seed=derive(config.seed, "optimizer"),
            ),
        )
        result = execute(
            Trainer(config, model, data, loss, optimizer, attempt),
            attempt,
            resume,
            environment=describe(config, device, model),
            data=data.info.to_dict(),
            write_artifacts=lambda folder: _write_artifacts(folder, config, model, data),
        )
    return TrainResult(**vars(result), model=model, dataset=data)


def build_network(config: TrainConfig, device: torch.device) -> tuple[nn.Module, Dataset]:
    """Return a run's network with its initial parameters, on the device, and its data set.

    Seeds torch's global generator for the dropout that follows.

    Raises:
        SpecError: if there is no such data set or model, or they do not fit each other.
        DataError: if the data set cannot be read.
    """
    data = _at("/dataset", lambda: load(*_source(config)))
    _check(config, data)
    seed = derive(config.seed, "initialization")
    model = _at(
        "/model", lambda: build_model(config.model.name, config.model.params, data.info, seed)
    ).to(device)
    torch.manual_seed(derive(config.seed, "dropout"))
    return model, data


def _check(config: TrainConfig, data: Dataset) -> None:
    """Refuse what would fail in the middle of a step."""
    name, params = config.model.name, config.model.params
    summary = _at("/model", lambda: models.summarize(name, params, data.info))
    epoch = Epoch(data.size("train"), config.batch_size)
    check_batches(summary, epoch)
    chosen = config.optimizer
    with under("/optimizer"):
        check_microbatches(summary, optimizers.OPTIMIZERS.parse(chosen.name, chosen.params), epoch)


def describe(config: TrainConfig, device: torch.device, model: nn.Module) -> dict[str, Any]:
    """Return the environment of a run, as JSON values."""
    return environment.describe(device, model, config.seed, digest(*_source(config)))


def _source(config: TrainConfig) -> tuple[str, dict[str, Any], str | None]:
    return config.dataset.name, config.dataset.params, config.dataset.root


def _at(pointer: str, make: Callable[[], _T]) -> _T:
    """Call ``make``; make its SpecError point into the whole configuration."""
    try:
        return make()
    except SpecError as error:
        raise error.under(pointer) from error


def _write_artifacts(
    folder: Path, config: TrainConfig, model: nn.Module, data: Dataset
) -> list[tuple[str, str]]:
    save_model(folder, model, config.model, data.info, data.preprocessing, loss_name(data.info))
    document = config.model_dump(mode="json")
    document["dataset"].pop("root")  # a path of the machine it ran on
    atomic_files.write(folder / "config.json", json.dumps(document, indent=2).encode())
    return [
        ("model.safetensors", "application/octet-stream"),
        ("model.json", "application/json"),
        ("config.json", "application/json"),
    ]
