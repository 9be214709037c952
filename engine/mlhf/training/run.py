"""Train one network as its configuration says."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import nn

from mlhf.core import atomic_files
from mlhf.core.budget import total_steps
from mlhf.core.checked import checked
from mlhf.core.errors import SpecError
from mlhf.core.events import Event, OnEvent, event
from mlhf.core.metrics import Summary
from mlhf.core.seeds import derive
from mlhf.data.loading import Dataset, load
from mlhf.data.specs import digest
from mlhf.models.build import build as build_model
from mlhf.models.files import save_model
from mlhf.models.loss import loss_name
from mlhf.optimizers.registry import build as build_optimizer
from mlhf.training import checkpoint, environment
from mlhf.training.clock import Clock
from mlhf.training.config import TrainConfig
from mlhf.training.reproducible import reproducible
from mlhf.training.trainer import Status, Trainer

_T = TypeVar("_T")


@dataclass(frozen=True)
class TrainResult:
    """A run's end.

    Attributes:
        status: ``succeeded``, ``diverged`` (the loss was not finite) or ``interrupted``
            (``should_stop`` said so; a checkpoint is there if there is a run folder).
        reason: ``budget``, ``target``, or a sentence.
        totals: steps, samples, epochs, and the seconds of each kind.
        summary: Each metric's last and best value, and the best one's step.
        model: The network, in evaluation mode, as the last step left it, or the average that
            its optimizer keeps.
        dataset: What it was trained on.
    """

    status: Status
    reason: str
    totals: dict[str, float]
    summary: dict[str, Summary]
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
        on_event: Is told each event (``mlhf.core.events``).
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
    emit: OnEvent = on_event or _ignore
    folder = None if run_dir is None else Path(run_dir)
    device = environment.choose_device(config.device)
    with reproducible(config.threads, device):
        data = _at("/dataset", lambda: load(*_source(config)))
        initial = derive(config.seed, "initialization")
        model = _at(
            "/model",
            lambda: build_model(config.model.name, config.model.params, data.info, initial),
        ).to(device)
        torch.manual_seed(derive(config.seed, "dropout"))
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
        trainer = Trainer(
            config,
            model,
            data,
            loss,
            optimizer,
            emit=emit,
            run_dir=folder,
            should_stop=should_stop or _never,
            checkpoint_seconds=checkpoint_seconds,
            flush_seconds=flush_seconds,
            clock=clock,
        )
        if resume is not None:
            trainer.load_state_dict(checkpoint.load((folder or Path()) / resume))
        emit(
            event(
                "started",
                environment=environment.describe(
                    device, model, config.seed, digest(*_source(config))
                ),
                total_steps=trainer.total_steps,
                resumed_from_step=trainer.step,
                data=data.info.to_dict(),
            )
        )
        outcome = trainer.run()
        trainer.finish()
        if outcome.status == "interrupted":
            emit(event("interrupted", step=trainer.step))
        else:
            if folder is not None:
                _write_artifacts(folder, config, model, data, emit)
            emit(
                event(
                    "finished",
                    status=outcome.status,
                    reason=outcome.reason,
                    totals=trainer.totals(),
                    summary=trainer.recorder.summary(),
                    target=None if trainer.target_at is None else trainer.target_at.to_dict(),
                )
            )
    return TrainResult(
        outcome.status,
        outcome.reason,
        trainer.totals(),
        trainer.recorder.summary(),
        model,
        data,
    )


def _source(config: TrainConfig) -> tuple[str, dict[str, Any], str | None]:
    return config.dataset.name, config.dataset.params, config.dataset.root


def _at(pointer: str, make: Callable[[], _T]) -> _T:
    """Call ``make``; a SpecError of it then points into the whole configuration."""
    try:
        return make()
    except SpecError as error:
        raise error.under(pointer) from error


def _write_artifacts(
    folder: Path, config: TrainConfig, model: nn.Module, data: Dataset, emit: OnEvent
) -> None:
    target = folder / "artifacts"
    target.mkdir(parents=True, exist_ok=True)
    save_model(target, model, config.model, data.info, data.preprocessing, loss_name(data.info))
    document = config.model_dump(mode="json")
    document["dataset"].pop("root")  # a path of the machine it ran on
    atomic_files.write(target / "config.json", json.dumps(document, indent=2).encode())
    for name, content_type in (
        ("model.safetensors", "application/octet-stream"),
        ("model.json", "application/json"),
        ("config.json", "application/json"),
    ):
        size, sha256 = atomic_files.size_and_sha256(target / name)
        emit(
            event(
                "artifact",
                name=name,
                path=f"artifacts/{name}",
                content_type=content_type,
                size=size,
                sha256=sha256,
            )
        )


def _ignore(_: Event) -> None:
    pass


def _never() -> bool:
    return False
