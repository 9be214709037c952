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
from mlhf.core.config import Component
from mlhf.core.errors import SpecError, under
from mlhf.core.events import OnEvent
from mlhf.core.seeds import derive
from mlhf.data.cache import DataCache
from mlhf.data.info import DataInfo
from mlhf.data.loading import Dataset, load
from mlhf.data.specs import digest
from mlhf.losses.specs import network_info, raw_targets
from mlhf.models import specs as models
from mlhf.models.build import build as build_model
from mlhf.models.files import save_model
from mlhf.models.loss import loss_name, make_loss
from mlhf.optimizers import specs as optimizers
from mlhf.optimizers.registry import build as build_optimizer
from mlhf.training import environment
from mlhf.training.attempt import Attempt
from mlhf.training.batch_norm import check_batches, check_microbatches
from mlhf.training.clock import Clock
from mlhf.training.config import TrainConfig, equation_of
from mlhf.training.execution import execute
from mlhf.training.memory import check_memory_bytes
from mlhf.training.pde.data import PdeData
from mlhf.training.pde.prepare import prepare
from mlhf.training.pde.solution import SOLUTION, write_solution
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
    dataset: Dataset | PdeData


def train(
    config: TrainConfig | Mapping[str, Any],
    on_event: OnEvent | None = None,
    run_dir: str | Path | None = None,
    resume: str | Path | None = None,
    should_stop: Callable[[], bool] | None = None,
    checkpoint_seconds: float | None = 15.0,
    flush_seconds: float = 0.25,
    clock: Clock | None = None,
    data_cache: DataCache | str | Path | None = None,
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
        data_cache: A folder that keeps decoded data sets, so that further runs need not decode.

    Raises:
        SpecError: where the configuration cannot be run.
        DataError: where the data set or the checkpoint cannot be read.
    """
    config = checked(TrainConfig, config)
    attempt = Attempt(
        on_event, run_dir, should_stop, checkpoint_seconds, flush_seconds, clock, data_cache
    )
    device = environment.choose_device(config.device)
    with reproducible(config.threads, device):
        trainer, model, data = _prepare(config, device, attempt)
        result = execute(
            trainer,
            attempt,
            resume,
            environment=describe(config, device, data, trainer),
            data=data.info.to_dict(),
            write_artifacts=lambda folder: _write_artifacts(folder, config, model, data),
        )
    return TrainResult(**vars(result), model=model, dataset=data)


def _prepare(
    config: TrainConfig, device: torch.device, attempt: Attempt
) -> tuple[Trainer, nn.Module, Dataset | PdeData]:
    """Return the loop, the network that is to be saved in the end, and its data."""
    if equation_of(config) is not None:
        return prepare(config, device, attempt)
    model, data = build_network(config, device, attempt)
    loss = _at("/loss", lambda: make_loss(data.info, config.loss))
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
    return Trainer(config, model, data, loss, optimizer, attempt), model, data


def build_network(
    config: TrainConfig, device: torch.device, attempt: Attempt
) -> tuple[nn.Module, Dataset]:
    """Return a run's network with its initial parameters, on the device, and its data set.

    Seeds torch's global generator for the dropout that follows.

    Raises:
        SpecError: if there is no such data set or model, or they do not fit each other.
        DataError: if the data set cannot be read.
    """
    data = _at(
        "/dataset",
        lambda: load(
            *_source(config),
            sha256=config.dataset.sha256,
            cache=attempt.data_cache,
            dtype=config.dtype,
            raw_targets=raw_targets(config.loss),
            warn=attempt.warn,
        ),
    )
    needed = _check(config, data)
    seed = derive(config.seed, "initialization")
    model = _at(
        "/model", lambda: build_model(config.model.name, config.model.params, needed, seed)
    ).to(device, getattr(torch, config.dtype))
    torch.manual_seed(derive(config.seed, "dropout"))
    return model, data


def _check(config: TrainConfig, data: Dataset) -> DataInfo:
    """Refuse what would fail in the middle of a step; return the data as the network fits it."""
    name, params = config.model.name, config.model.params
    needed = _at("/loss", lambda: network_info(data.info, config.loss))
    summary = _at("/model", lambda: models.summarize(name, params, needed))
    epoch = Epoch(data.size("train"), config.batch_size)
    check_batches(summary, epoch)
    chosen = config.optimizer
    with under("/optimizer"):
        parsed = optimizers.OPTIMIZERS.parse(chosen.name, chosen.params)
        check_microbatches(summary, parsed, epoch)
        check_memory_bytes(summary, needed, parsed, config.batch_size, config.dtype)
        optimizers.check_task(chosen.name, parsed, data.info.task)
    return needed


def describe(
    config: TrainConfig, device: torch.device, data: Dataset | PdeData, trainer: Trainer
) -> dict[str, Any]:
    """Return the environment of a run, as JSON values, with what its evaluations measure."""
    sha256 = data.sha256 or digest(*_source(config))
    described = environment.describe(device, trainer.model, config.seed, sha256)
    return {**described, "evaluation": trainer.measured.describe()}


def _source(config: TrainConfig) -> tuple[str, dict[str, Any], str | None]:
    return config.dataset.name, config.dataset.params, config.dataset.root


def _at(pointer: str, make: Callable[[], _T]) -> _T:
    """Call ``make``; make its SpecError point into the whole configuration."""
    try:
        return make()
    except SpecError as error:
        raise error.under(pointer) from error


def _write_artifacts(
    folder: Path, config: TrainConfig, model: nn.Module, data: Dataset | PdeData
) -> list[tuple[str, str]]:
    loss = config.loss or Component(name=loss_name(data.info))
    needed = network_info(data.info, config.loss)
    save_model(folder, model, config.model, needed, data.preprocessing, loss.name, loss.params)
    document = config.model_dump(mode="json")
    document["dataset"].pop("root")  # a path of the machine it ran on
    atomic_files.write(folder / "config.json", json.dumps(document, indent=2).encode())
    written = [
        ("model.safetensors", "application/octet-stream"),
        ("model.json", "application/json"),
        ("config.json", "application/json"),
    ]
    if isinstance(data, PdeData):
        write_solution(folder / SOLUTION, model, data)
        written.append((SOLUTION, "application/octet-stream"))
    return written
