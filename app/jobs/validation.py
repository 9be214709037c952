"""Everything about a request that can be checked before a worker sees it."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from app.datasets.service import ResolvedDataset, resolve
from app.jobs.schemas import Estimate, JobRequest
from app.jobs.sweeps import PlannedRun, plan
from app.settings import Settings
from app.storage.folder import FolderStorage
from engine.errors import SpecError
from engine.models import specs as models
from engine.models.specs import ModelSummary
from engine.optimizers import specs as optimizers
from engine.training.config import TrainConfig

_FLOAT_BYTES = 4


@dataclass(frozen=True)
class Validated:
    """A request that can be run: its runs, their configurations, and what they need."""

    planned: list[PlannedRun]
    configs: list[dict[str, Any]]
    dataset: ResolvedDataset
    estimate: Estimate
    queue: str


def validate(
    session: Session, settings: Settings, storage: FolderStorage, request: JobRequest
) -> Validated:
    """Check names, parameters, shapes and budgets. Raises SpecError with a pointer."""
    planned = plan(request, settings.max_sweep_runs)
    with _under("/dataset"):
        dataset = resolve(session, settings, storage, request.dataset.name, request.dataset.params)
    info = dataset.info
    with _under("/model"):
        summary = models.summarize(request.model.name, request.model.params, info)
    for run in planned:
        with _under(run.pointer):
            params = optimizers.parse(run.optimizer.name, run.optimizer.params)
            optimizers.check_run(params, total_steps(request, info.train_samples))

    if summary.parameters > settings.max_parameters:
        raise SpecError(
            "/model/params",
            f"The network has {summary.parameters:,} parameters; at most "
            f"{settings.max_parameters:,} are allowed here.",
        )
    if request.batch_size > info.train_samples:
        raise SpecError(
            "/batch_size",
            f"A batch of {request.batch_size:,} is larger than the training set of "
            f"{info.train_samples:,} samples.",
        )
    memory, per_batch = max(_floats(run, summary, request.batch_size) for run in planned)
    memory *= _FLOAT_BYTES
    if memory > settings.max_memory_bytes:
        raise SpecError(
            "/batch_size" if 2 * per_batch * _FLOAT_BYTES > memory else "/model/params",
            f"One run would need about {memory / 2**30:.1f} GiB; at most "
            f"{settings.max_memory_bytes / 2**30:.1f} GiB are allowed here. "
            "Take a smaller network or batch.",
        )
    if request.resources.device == "cuda" and not settings.has_gpu:
        raise SpecError("/resources/device", "No GPU serves this deployment: use auto or cpu.")

    configs = [_config(request, run) for run in planned]
    estimate = Estimate(
        runs=len(planned),
        parameters=summary.parameters,
        activations_per_sample=summary.activations,
        memory_bytes=memory,
        input_shape=list(info.input_shape),
        outputs=info.outputs,
        train_samples=info.train_samples,
        test_samples=info.test_samples,
        total_steps=total_steps(request, info.train_samples),
    )
    gpu = request.resources.device == "cuda" or (
        request.resources.device == "auto" and settings.has_gpu
    )
    return Validated(planned, configs, dataset, estimate, "gpu" if gpu else "cpu")


def _floats(run: PlannedRun, summary: ModelSummary, batch_size: int) -> tuple[int, int]:
    """Floats a run needs at its peak, and those of them that grow with the batch."""
    spec = optimizers.OPTIMIZERS[run.optimizer.name]
    per_batch = summary.activations * batch_size * (3 if spec.second_order else 2)
    return summary.parameters * (1 + spec.state_copies) + per_batch, per_batch


def total_steps(request: JobRequest, train_samples: int) -> int | None:
    """Steps until the first of epochs, steps and samples is reached; None without these."""
    size, budget = request.batch_size, request.budget
    full, rest = divmod(train_samples, size)
    per_epoch = full + (rest > 1 or (rest == 1 and size == 1))  # a last single one is left out
    limits = []
    if budget.epochs is not None:
        limits.append(math.ceil(budget.epochs * per_epoch))
    if budget.steps is not None:
        limits.append(budget.steps)
    if budget.samples is not None:
        limits.append(math.ceil(budget.samples / size))
    return min(limits) if limits else None


def _config(request: JobRequest, run: PlannedRun) -> dict[str, Any]:
    """The run's configuration, defaults written out: an upgrade must not change a run that
    waits or resumes, and its record says what it was trained with."""
    model = models.parse(request.model.name, request.model.params).model_dump(mode="json")
    optimizer = optimizers.parse(run.optimizer.name, run.optimizer.params).model_dump(mode="json")
    return TrainConfig(
        model={"name": request.model.name, "params": model},
        dataset={"name": request.dataset.name, "params": request.dataset.params},
        optimizer={"name": run.optimizer.name, "params": optimizer},
        budget=request.budget,
        batch_size=request.batch_size,
        seed=run.seed,
        target=request.target,
        evaluation=request.evaluation,
        device=request.resources.device,
        threads=request.resources.threads,
    ).model_dump(mode="json", exclude_none=True)


@contextmanager
def _under(prefix: str) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise error.under(prefix) from None
