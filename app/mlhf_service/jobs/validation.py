"""Everything about a request that can be checked before a worker sees it."""

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any

from sqlalchemy.orm import Session

from mlhf.ablation.config import FORMS, AblationConfig
from mlhf.core.budget import total_steps
from mlhf.core.config import Component
from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.meta.config import total_iterations
from mlhf.models import specs as models
from mlhf.models.specs import ModelSummary
from mlhf.optimizers import specs as optimizers
from mlhf.optimizers.learned.families import KRONECKER, PAPER, family_of
from mlhf.training.config import TrainConfig
from mlhf_service.datasets.service import resolve
from mlhf_service.jobs.schemas import (
    AblationRequest,
    AnyRequest,
    Estimate,
    JobRequest,
    MetaTrainRequest,
)
from mlhf_service.jobs.sweeps import PlannedRun, plan
from mlhf_service.meta_checkpoints import service as meta_checkpoints
from mlhf_service.meta_checkpoints.service import UNTRAINED
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage

_FLOAT_BYTES = 4
# What backpropagation keeps of both networks, a coordinate and unrolled step.
_UNROLLED_FLOATS = 120
# Vectors of the parameters' size that an ablation holds: mlhf's, each further form's solution,
# the second state of RNN_p, and Adam's moments.
_ABLATION_COPIES = optimizers.OPTIMIZERS["mlhf"].state_copies + (len(FORMS) - 1) + 16 + 2


@dataclass(frozen=True)
class NewRun:
    """A run to be made, checked."""

    position: int
    label: str
    kind: str
    config: dict[str, Any]
    model: str
    dataset: str
    optimizer: str
    seed: int
    info: DataInfo | None = None
    meta_checkpoint_id: str | None = None


@dataclass(frozen=True)
class Validated:
    """A request that can be run: its runs, and what they need."""

    runs: list[NewRun]
    estimate: Estimate
    queue: str


@dataclass(frozen=True)
class Deployment:
    """What a request is checked against."""

    session: Session
    settings: Settings
    storage: FolderStorage


def validate(
    session: Session, settings: Settings, storage: FolderStorage, request: AnyRequest
) -> Validated:
    """Check names, parameters, shapes and budgets. Raises SpecError with a pointer."""
    here = Deployment(session, settings, storage)
    device = request.resources.device
    if device == "cuda" and not settings.has_gpu:
        raise SpecError("/resources/device", "No GPU serves this deployment: use auto or cpu.")
    queue = "gpu" if settings.has_gpu and device != "cpu" else "cpu"
    if isinstance(request, MetaTrainRequest):
        run, estimate = _meta_train(here, request)
        return Validated([run], estimate, queue)
    if isinstance(request, AblationRequest):
        runs, estimate = _ablation(here, request)
        return Validated(runs, estimate, queue)
    assert isinstance(request, JobRequest)
    runs, estimate = _training(here, request)
    return Validated(runs, estimate, queue)


def _training(here: Deployment, request: JobRequest) -> tuple[list[NewRun], Estimate]:
    planned = plan(request, here.settings.max_sweep_runs)
    info, summary = _network(
        here, request.model, request.dataset, {"/batch_size": request.batch_size}, ""
    )
    steps = total_steps(request.budget, info.train_samples, request.batch_size)
    model = models.parse(request.model.name, request.model.params).model_dump(mode="json")
    runs, memory, per_batch = [], 0, 0
    for position, run in enumerate(planned):
        with under(run.pointer):
            parsed = optimizers.parse(run.optimizer.name, run.optimizer.params)
            optimizers.check_run(parsed, steps)
            params = parsed.model_dump(mode="json")
            pinned = _pin(here, run.optimizer.name, params)
        floats, of_batch = _floats(run, summary, request.batch_size)
        memory, per_batch = max((memory, per_batch), (_FLOAT_BYTES * floats, of_batch))
        runs.append(
            NewRun(
                position=position,
                label=run.label,
                kind="train",
                config=_config(request, model, run, params),
                model=request.model.name,
                dataset=request.dataset.name,
                optimizer=run.optimizer.name,
                seed=run.seed,
                info=info,
                meta_checkpoint_id=pinned,
            )
        )
    _check_memory(here, memory, 2 * per_batch * _FLOAT_BYTES > memory, "")
    return runs, _estimate(len(runs), summary, memory, info, steps)


def _meta_train(here: Deployment, request: MetaTrainRequest) -> tuple[NewRun, Estimate]:
    config = request.model_dump(mode="json", exclude={"kind", "name", "tags", "resources"})
    family = family_of(request.optimizer, {"variant": request.variant})
    estimates, total = [], total_iterations(request, request.tasks)
    for number, (task, written) in enumerate(zip(request.tasks, config["tasks"], strict=True)):
        pointer = f"/tasks/{number}"
        sizes = {f"{pointer}/batch_sizes/{i}": size for i, size in enumerate(task.batch_sizes)}
        info, summary = _network(here, task.model, task.dataset, sizes, pointer)
        parsed = models.parse(task.model.name, task.model.params)
        written["model"]["params"] = parsed.model_dump(mode="json")
        floats = _unrolled_floats(request, family, info, summary, max(task.batch_sizes))
        memory = _FLOAT_BYTES * floats
        _check_memory(here, memory, False, pointer)
        estimates.append(_estimate(1, summary, memory, info, total))
    if request.start is not None:
        with under("/start"):
            config["start"] = meta_checkpoints.resolve(here.session, family, request.start)
    run = NewRun(
        position=0,
        label=request.optimizer,
        kind="meta_train",
        config={**config, **request.resources.model_dump(mode="json", exclude_none=True)},
        model=", ".join(dict.fromkeys(t.model.name for t in request.tasks))[:100],
        dataset=", ".join(dict.fromkeys(t.dataset.name for t in request.tasks))[:100],
        optimizer=request.optimizer,
        seed=request.seed,
        meta_checkpoint_id=config["start"],
    )
    return run, max(estimates, key=lambda estimate: estimate.memory_bytes)


def _ablation(here: Deployment, request: AblationRequest) -> tuple[list[NewRun], Estimate]:
    total = len(request.tasks) * len(request.seeds)
    if total > here.settings.max_sweep_runs:
        raise SpecError(
            "/tasks",
            f"This ablation has {total} runs; at most {here.settings.max_sweep_runs} are allowed.",
        )
    names = [task.called() for task in request.tasks]
    pinned = None
    if request.meta_checkpoint != UNTRAINED:
        with under("/meta_checkpoint"):
            pinned = meta_checkpoints.resolve(here.session, PAPER, request.meta_checkpoint)
    configs, infos, estimates = [], [], []
    for number, task in enumerate(request.tasks):
        pointer = f"/tasks/{number}"
        if names[number] in names[:number]:
            raise SpecError(f"{pointer}/name", f"Two tasks are called {names[number]!r}.")
        sizes = {f"{pointer}/batch_size": task.batch_size}
        info, summary = _network(here, task.model, task.dataset, sizes, pointer)
        steps = total_steps(task.budget, info.train_samples, task.batch_size)
        per_batch = 3 * summary.activations * task.batch_size
        memory = _FLOAT_BYTES * (summary.parameters * (1 + _ABLATION_COPIES) + per_batch)
        _check_memory(here, memory, 2 * per_batch * _FLOAT_BYTES > memory, pointer)
        parsed = models.parse(task.model.name, task.model.params).model_dump(mode="json")
        optimizer = {"variant": "paper", "meta_checkpoint": pinned or UNTRAINED}
        configs.append(
            AblationConfig(
                task=names[number],
                model={"name": task.model.name, "params": parsed},
                dataset={"name": task.dataset.name, "params": task.dataset.params},
                optimizer={"name": "mlhf", "params": optimizer},
                budget=task.budget,
                batch_size=task.batch_size,
                evaluation=task.evaluation,
                **request.resources.model_dump(),
            )
        )
        infos.append(info)
        estimates.append(_estimate(total, summary, memory, info, steps))
    # Seeds are the outer loop, so that an unfinished ablation has measured all its tasks.
    tasks = list(zip(configs, infos, strict=True))
    runs = [
        NewRun(
            position=position,
            label=f"{config.task} seed {seed}",
            kind="ablation",
            config={**config.model_dump(mode="json", exclude_none=True), "seed": seed},
            model=config.model.name,
            dataset=config.dataset.name,
            optimizer="mlhf",
            seed=seed,
            info=info,
            meta_checkpoint_id=pinned,
        )
        for position, (seed, (config, info)) in enumerate(product(request.seeds, tasks))
    ]
    return runs, max(estimates, key=lambda estimate: estimate.memory_bytes)


def _network(
    here: Deployment, model: Component, dataset: Component, sizes: Mapping[str, int], pointer: str
) -> tuple[DataInfo, ModelSummary]:
    """What a model on a data set is, checked against the deployment's limits.

    ``sizes`` are those of batches, by where in the request they stand.
    """
    with under(f"{pointer}/dataset"):
        info = resolve(here.session, here.settings, here.storage, dataset.name, dataset.params).info
    with under(f"{pointer}/model"):
        summary = models.summarize(model.name, model.params, info)
    if summary.parameters > here.settings.max_parameters:
        raise SpecError(
            f"{pointer}/model/params",
            f"The network has {summary.parameters:,} parameters; at most "
            f"{here.settings.max_parameters:,} are allowed here.",
        )
    for place, size in sizes.items():
        if size > info.train_samples:
            raise SpecError(
                place,
                f"A batch of {size:,} is larger than the training set of "
                f"{info.train_samples:,} samples.",
            )
    return info, summary


def _pin(here: Deployment, optimizer: str, params: dict[str, Any]) -> str | None:
    """Replace the name of a meta-checkpoint by its id: an alias that is moved later must not
    change a run. Users name meta-checkpoints, never files."""
    if params.get("meta_checkpoint", UNTRAINED) == UNTRAINED:
        return None
    with under("/params/meta_checkpoint"):
        family = family_of(optimizer, params)
        identity = meta_checkpoints.resolve(here.session, family, params["meta_checkpoint"])
    params["meta_checkpoint"] = identity
    return identity


def _check_memory(here: Deployment, memory: int, batch: bool, pointer: str) -> None:
    limit = here.settings.max_memory_bytes
    if memory > limit:
        raise SpecError(
            f"{pointer}/batch_size" if batch else f"{pointer}/model/params",
            f"One run would need about {memory / 2**30:.1f} GiB; at most "
            f"{limit / 2**30:.1f} GiB are allowed here. Take a smaller network or batch.",
        )


def _estimate(
    runs: int, summary: ModelSummary, memory: int, info: DataInfo, steps: int | None
) -> Estimate:
    return Estimate(
        runs=runs,
        parameters=summary.parameters,
        activations_per_sample=summary.activations,
        memory_bytes=memory,
        input_shape=list(info.input_shape),
        outputs=info.outputs,
        train_samples=info.train_samples,
        test_samples=info.test_samples,
        total_steps=steps,
    )


def _floats(run: PlannedRun, summary: ModelSummary, batch_size: int) -> tuple[int, int]:
    """Floats a run needs at its peak, and those of them that grow with the batch."""
    spec = optimizers.OPTIMIZERS[run.optimizer.name]
    per_batch = summary.activations * batch_size * (3 if spec.second_order else 2)
    return summary.parameters * (1 + spec.state_copies) + per_batch, per_batch


def _unrolled_floats(
    request: MetaTrainRequest, family: str, info: DataInfo, summary: ModelSummary, batch_size: int
) -> int:
    """Floats that meta-training on a task needs at its peak."""
    if family != KRONECKER:
        per_step = _UNROLLED_FLOATS * summary.parameters + summary.activations * batch_size
        return request.unroll * per_step
    # Nothing is kept to go back through: a run, its batches, and the starting points.
    spec = optimizers.OPTIMIZERS[request.optimizer]
    run = (1 + spec.state_copies) * summary.parameters + 3 * summary.activations * batch_size
    batches = (request.unroll + 1) * batch_size * math.prod(info.input_shape)
    return run + batches + request.replay.capacity * summary.parameters


def _config(
    request: JobRequest, model: dict[str, Any], run: PlannedRun, params: dict[str, Any]
) -> dict[str, Any]:
    """The run's configuration, defaults written out: an upgrade must not change a run that
    waits or resumes, and its record says what it was trained with."""
    return TrainConfig(
        model={"name": request.model.name, "params": model},
        dataset={"name": request.dataset.name, "params": request.dataset.params},
        optimizer={"name": run.optimizer.name, "params": params},
        budget=request.budget,
        batch_size=request.batch_size,
        seed=run.seed,
        target=request.target,
        evaluation=request.evaluation,
        device=request.resources.device,
        threads=request.resources.threads,
    ).model_dump(mode="json", exclude_none=True)


@contextmanager
def under(prefix: str) -> Iterator[None]:
    try:
        yield
    except SpecError as error:
        raise error.under(prefix) from None
