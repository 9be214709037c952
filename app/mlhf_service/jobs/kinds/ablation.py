"""Measure what the learned preconditioner is worth: tasks × seeds, each a run."""

from itertools import product
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from mlhf.ablation.config import SOLVER_VARIANTS, AblationConfig
from mlhf.core.budget import Epoch, total_steps
from mlhf.core.config import Component
from mlhf.core.errors import SpecError, under
from mlhf.optimizers import specs as optimizers
from mlhf.optimizers.learned.families import PAPER, UNTRAINED
from mlhf.training.batch_norm import check_batches
from mlhf.training.memory import FLOAT_BYTES, PROCESS_BYTES
from mlhf_service.context import Context
from mlhf_service.jobs.kinds.caps import check_budget
from mlhf_service.jobs.kinds.inputs import prepare_training
from mlhf_service.jobs.kinds.networks import check_network
from mlhf_service.jobs.kinds.protocol import JobKind, Plan, PlannedRun, Prepared
from mlhf_service.jobs.kinds.requests import JobRequest, Seeds, Training
from mlhf_service.meta_checkpoints import service as meta_checkpoints

# Vectors of the parameters' size that an ablation holds: mlhf's, each further form's solution,
# the second state of RNN_p, and Adam's moments.
_STATE_COPIES = optimizers.OPTIMIZERS["mlhf"].state_copies + (len(SOLVER_VARIANTS) - 1) + 16 + 2

TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]


class AblationTask(Training):
    """What ``mlhf`` of the variant ``paper`` trains while all forms of solving are measured."""

    name: TaskName | None = Field(
        default=None, description="What the table calls it; `<model>-<dataset>` when absent."
    )

    def called(self) -> str:
        return self.name or f"{self.model.name}-{self.dataset.name}"


class AblationRequest(JobRequest):
    """What the learned preconditioner is worth (paper, section 6.3): tasks × seeds, each a run."""

    kind: Literal["ablation"]
    tasks: Annotated[list[AblationTask], Field(min_length=1, max_length=16)]
    seeds: Seeds = Field(default=[0])
    meta_checkpoint: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="default",
        description="Of `mlhf` with variant `paper`: an id or alias; `none`: untrained networks.",
    )


class Ablation(JobKind[AblationRequest]):
    """A trajectory of each task and seed, and one table and figure of them all."""

    name, request = "ablation", AblationRequest
    page_part = "ablation_links.html"

    def plan(self, context: Context, request: AblationRequest) -> Plan:
        total, limit = len(request.tasks) * len(request.seeds), context.settings.max_sweep_runs
        if total > limit:
            raise SpecError(
                "/tasks", f"This ablation has {total} runs; at most {limit} are allowed."
            )
        pinned = None
        if request.meta_checkpoint != UNTRAINED:
            with under("/meta_checkpoint"):
                pinned = meta_checkpoints.resolve(context.session, PAPER, request.meta_checkpoint)
        params = {"variant": "paper", "meta_checkpoint": pinned or UNTRAINED}
        tasks: dict[str, Any] = {}
        estimates = []
        for number, task in enumerate(request.tasks):
            pointer, name = f"/tasks/{number}", task.called()
            if name in tasks:
                raise SpecError(f"{pointer}/name", f"Two tasks are called {name!r}.")
            sizes = {"/batch_size": task.batch_size}
            network = check_network(context, task.model, task.dataset, sizes, pointer)
            with under(pointer):
                check_batches(network.summary, Epoch(network.info.train_samples, task.batch_size))
            of_batch = 3 * network.summary.activations * task.batch_size
            floats = network.summary.parameters * (1 + _STATE_COPIES) + of_batch
            memory = network.check_memory(
                context, PROCESS_BYTES + FLOAT_BYTES * floats, FLOAT_BYTES * of_batch
            )
            steps = total_steps(task.budget, network.info.train_samples, task.batch_size)
            check_budget(context, task.budget, steps, pointer)
            estimates.append(network.estimate(total, memory, steps))
            config = AblationConfig(
                task=name,
                model=Component.model_validate(network.model),
                dataset=network.dataset,
                optimizer=Component(name="mlhf", params=params),
                budget=task.budget,
                batch_size=task.batch_size,
                evaluation=task.evaluation,
                **request.resources.model_dump(),
            )
            tasks[name] = config, network
        # Seeds are the outer loop, so that an unfinished ablation has measured all its tasks.
        runs = [
            PlannedRun(
                kind=self.name,
                config={**config.model_dump(mode="json", exclude_none=True), "seed": seed},
                model=config.model.name,
                dataset=network.dataset["name"],
                dataset_name=network.dataset_name,
                optimizer="mlhf",
                seed=seed,
                label=f"{config.task} seed {seed}",
                info=network.info,
                meta_checkpoint_id=pinned,
            )
            for seed, (config, network) in product(request.seeds, tasks.values())
        ]
        return Plan(
            name=f"ablation of the learned preconditioner: {', '.join(tasks)}"[:200],
            runs=runs,
            estimate=max(estimates, key=lambda estimate: estimate.memory_bytes),
        )

    def prepare(self, context: Context, config: dict[str, Any]) -> Prepared:
        return prepare_training(context, config)
