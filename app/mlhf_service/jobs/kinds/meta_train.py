"""Meta-train a learned optimizer: one run, which yields a meta-checkpoint."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from mlhf.core.config import Component
from mlhf.core.errors import under
from mlhf.meta.config import MetaSettings, TaskGrid, total_iterations
from mlhf.optimizers import specs as optimizers
from mlhf.optimizers.learned.families import KRONECKER, family_of
from mlhf.training.memory import FLOAT_BYTES, PROCESS_BYTES
from mlhf_service.context import Caller, Context
from mlhf_service.jobs.kinds.inputs import dataset_source, staged_file, staged_model
from mlhf_service.jobs.kinds.networks import Network, check_network
from mlhf_service.jobs.kinds.protocol import JobKind, Plan, PlannedRun, Prepared
from mlhf_service.jobs.kinds.requests import JobRequest
from mlhf_service.meta_checkpoints import service as meta_checkpoints
from mlhf_service.meta_checkpoints.files import describe
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.storage.protocol import Stored

# What backpropagation keeps of both networks, a coordinate and unrolled step.
_UNROLLED_FLOATS = 120


class MetaTask(TaskGrid):
    """A grid of tasks on one data set. Only the training split is ever used."""

    dataset: Component


class MetaTrainRequest(JobRequest, MetaSettings):
    """Meta-train a learned optimizer; what comes of it is a meta-checkpoint."""

    kind: Literal["meta_train"]
    tasks: Annotated[list[MetaTask], Field(min_length=1, max_length=64)]


class MetaTrain(JobKind[MetaTrainRequest]):
    """One run over many tasks."""

    name, request = "meta_train", MetaTrainRequest

    def plan(self, context: Context, request: MetaTrainRequest) -> Plan:
        config = request.model_dump(mode="json", exclude={"kind", *JobRequest.model_fields})
        config |= request.resources.model_dump(mode="json", exclude_none=True)
        family = family_of(request.optimizer, {"variant": request.variant})
        total = total_iterations(request, request.tasks)
        estimates = []
        datasets: dict[str, str] = {}
        for number, task in enumerate(request.tasks):
            sizes = {f"/batch_sizes/{i}": size for i, size in enumerate(task.batch_sizes)}
            network = check_network(context, task.model, task.dataset, sizes, f"/tasks/{number}")
            config["tasks"][number]["model"] = network.model
            config["tasks"][number]["dataset"] = network.dataset
            datasets[network.dataset["name"]] = network.dataset_name
            floats = _peak_floats(request, family, network, max(task.batch_sizes))
            memory = network.check_memory(context, PROCESS_BYTES + FLOAT_BYTES * floats)
            estimates.append(network.estimate(1, memory, total))
        if request.start is not None:
            with under("/start"):
                config["start"] = meta_checkpoints.resolve(context.session, family, request.start)
        model = ", ".join(dict.fromkeys(task.model.name for task in request.tasks))[:100]
        dataset = ", ".join(datasets)[:100]
        shown = ", ".join(datasets.values())[:200]
        run = PlannedRun(
            kind=self.name,
            config=config,
            model=model,
            dataset=dataset,
            dataset_name=shown,
            optimizer=request.optimizer,
            seed=request.seed,
            meta_checkpoint_id=config["start"],
        )
        return Plan(
            name=f"meta-train {request.optimizer} with {model} on {shown}"[:200],
            runs=[run],
            estimate=max(estimates, key=lambda estimate: estimate.memory_bytes),
        )

    def prepare(self, context: Context, config: dict[str, Any]) -> Prepared:
        tasks = []
        files: dict[str, Path] = {}
        for task in config["tasks"]:
            model, of_model = staged_model(context, task["model"])
            dataset = dataset_source(context, task["dataset"])
            tasks.append({**task, "model": model, "dataset": dataset})
            files |= of_model
        config = {**config, "tasks": tasks}
        if config.get("start"):
            name, source = staged_file(context, config["start"])
            config["start"], files[name] = name, source
        return Prepared(config, files)

    def conclude(self, context: Context, run: Run) -> None:
        """What meta-training yields outlives its run: a resource of its own."""
        artifact = context.session.get(Artifact, (run.id, "meta_checkpoint.safetensors"))
        if artifact is None:
            return
        meta_checkpoints.add(
            context.session,
            name=run.name,
            stored=Stored(artifact.storage_key, artifact.size, artifact.sha256),
            described=describe(context.storage.local(artifact.storage_key)),
            source="meta_train",
            job_id=run.job_id,
            run_id=run.id,
            parent_id=run.meta_checkpoint_id,
            owner=Caller(run.tenant, run.key_id),
        )


def _peak_floats(request: MetaTrainRequest, family: str, network: Network, batch_size: int) -> int:
    """Floats that meta-training on a task needs at its peak."""
    summary = network.summary
    if family != KRONECKER:
        per_step = _UNROLLED_FLOATS * summary.parameters + summary.activations * batch_size
        return request.unroll * per_step
    # Nothing is kept to go back through: a run, its batches, and the starting points.
    spec = optimizers.OPTIMIZERS[request.optimizer]
    run = (1 + spec.state_copies) * summary.parameters + 3 * summary.activations * batch_size
    batches = (request.unroll + 1) * batch_size * math.prod(network.info.input_shape)
    return run + batches + request.replay.capacity * summary.parameters
