"""One run of one optimizer; and how runs of any number of optimizers are planned."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from mlhf.core.budget import Epoch, total_steps
from mlhf.core.config import Component
from mlhf.core.errors import SpecError, under
from mlhf.optimizers.learned.families import UNTRAINED, family_of
from mlhf.optimizers.specs import OPTIMIZERS, check_run, check_task
from mlhf.training.batch_norm import check_batches, check_microbatches
from mlhf.training.config import TrainConfig, check_residuals
from mlhf.training.memory import check_memory_bytes, training_bytes
from mlhf.training.pde.unsuitable import check_optimizer
from mlhf_service.context import Context
from mlhf_service.jobs.kinds.caps import check_budget
from mlhf_service.jobs.kinds.inputs import prepare_training
from mlhf_service.jobs.kinds.networks import check_network, is_equation
from mlhf_service.jobs.kinds.protocol import JobKind, Plan, PlannedRun, Prepared
from mlhf_service.jobs.kinds.requests import Seed, TrainingRequest
from mlhf_service.meta_checkpoints.service import resolve

_NAMED_OPTIMIZERS = 4


class TrainRequest(TrainingRequest):
    """One run of one optimizer."""

    kind: Literal["train"]
    optimizer: Component
    seed: Seed = 0


@dataclass(frozen=True)
class Trial:
    """An optimizer and a seed to train with.

    Attributes:
        pointer: Where in the request the optimizer stands.
        label: As in ``PlannedRun``.
        from_grid: Where below ``pointer`` the values stand that a grid gave, by parameter.
        tags: Of the run, beside those of its job.
        held: As in ``PlannedRun``.
    """

    optimizer: Component
    seed: int
    pointer: str
    label: str | None = None
    from_grid: Mapping[str, str] = field(default_factory=dict)
    tags: Mapping[str, str] = field(default_factory=dict)
    held: bool = False

    @contextmanager
    def placed(self) -> Iterator[None]:
        """Let a SpecError about the optimizer point to where the request has the value."""
        try:
            yield
        except SpecError as error:
            for name, place in self.from_grid.items():
                own = f"/params/{name}"
                if error.pointer == own or error.pointer.startswith(own + "/"):
                    error = SpecError(place + error.pointer.removeprefix(own), error.message)
                    break
            raise error.under(self.pointer) from None


class Train(JobKind[TrainRequest]):
    """One run of one optimizer."""

    name, request = "train", TrainRequest

    def plan(self, context: Context, request: TrainRequest) -> Plan:
        return plan_trials(context, request, [Trial(request.optimizer, request.seed, "/optimizer")])

    def prepare(self, context: Context, config: dict[str, Any]) -> Prepared:
        return prepare_training(context, config)


def plan_trials(context: Context, request: TrainingRequest, trials: Sequence[Trial]) -> Plan:
    """Plan a run of each trial. Raises SpecError."""
    equation = is_equation(request.dataset.name)
    sizes = {} if equation else {"/batch_size": request.batch_size}
    network = check_network(
        context, request.model, request.dataset, sizes, loss=request.loss, residuals=True
    )
    summary, info = network.summary, network.info
    check_residuals(request, info)
    derivatives = info.input_shape[0] + 1 if equation else 0
    epoch = Epoch(info.train_samples, request.batch_size)
    check_batches(summary, epoch)
    steps = total_steps(request.budget, info.train_samples, request.batch_size)
    check_budget(context, request.budget, steps)
    runs, peak = [], (0, 0)
    for trial in trials:
        with trial.placed():
            parsed = OPTIMIZERS.parse(trial.optimizer.name, trial.optimizer.params)
            check_run(parsed, steps)
            check_task(trial.optimizer.name, parsed, info.task)
            check_microbatches(summary, parsed, epoch)
            check_memory_bytes(summary, info, parsed, request.batch_size, request.dtype)
            if equation:
                check_optimizer(parsed)
            params = parsed.model_dump(mode="json")
            pinned = None
            if params.get("meta_checkpoint", UNTRAINED) != UNTRAINED:
                # By its id: an alias that is moved later must not change a run.
                family = family_of(trial.optimizer.name, params)
                with under("/params/meta_checkpoint"):
                    pinned = resolve(context.session, family, params["meta_checkpoint"])
                params["meta_checkpoint"] = pinned
        name, size = trial.optimizer.name, request.batch_size
        need = training_bytes(summary, info, name, parsed, size, request.dtype, derivatives)
        peak = max(peak, need)
        config = TrainConfig(
            model=Component.model_validate(network.model),
            dataset=network.dataset,
            optimizer=Component(name=trial.optimizer.name, params=params),
            budget=request.budget,
            batch_size=request.batch_size,
            seed=trial.seed,
            loss=request.loss,
            target=request.target,
            evaluation=request.evaluation,
            device=request.resources.device,
            threads=request.resources.threads,
            dtype=request.dtype,
        )
        runs.append(
            PlannedRun(
                kind=Train.name,
                config=config.model_dump(mode="json", exclude_none=True),
                model=request.model.name,
                dataset=network.dataset["name"],
                dataset_name=network.dataset_name,
                optimizer=trial.optimizer.name,
                seed=trial.seed,
                label=trial.label,
                info=info,
                meta_checkpoint_id=pinned,
                tags=trial.tags,
                held=trial.held,
            )
        )
    memory = network.check_memory(context, *peak)
    names = sorted({run.optimizer for run in runs})
    shown = ", ".join(names[:_NAMED_OPTIMIZERS]) + (", …" if len(names) > _NAMED_OPTIMIZERS else "")
    return Plan(
        name=f"{request.model.name} on {network.dataset_name} with {shown}"[:200],
        runs=runs,
        estimate=network.estimate(len(runs), memory, steps),
    )
