"""One run of one optimizer; and how runs of any number of optimizers are planned."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from mlhf.core.budget import Epoch, total_steps
from mlhf.core.config import Component
from mlhf.core.errors import under
from mlhf.optimizers.learned.families import UNTRAINED, family_of
from mlhf.optimizers.specs import OPTIMIZERS, check_run
from mlhf.training.batch_norm import check_batches, check_microbatches
from mlhf.training.config import TrainConfig
from mlhf.training.memory import training_bytes
from mlhf_service.context import Context
from mlhf_service.jobs.kinds.inputs import prepare_training
from mlhf_service.jobs.kinds.networks import check_network
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
    """

    optimizer: Component
    seed: int
    pointer: str
    label: str | None = None


class Train(JobKind[TrainRequest]):
    """One run of one optimizer."""

    name, request = "train", TrainRequest

    def plan(self, context: Context, request: TrainRequest) -> Plan:
        return plan_trials(context, request, [Trial(request.optimizer, request.seed, "/optimizer")])

    def prepare(self, context: Context, config: dict[str, Any]) -> Prepared:
        return prepare_training(context, config)


def plan_trials(context: Context, request: TrainingRequest, trials: Sequence[Trial]) -> Plan:
    """Plan a run of each trial. Raises SpecError."""
    network = check_network(
        context, request.model, request.dataset, {"/batch_size": request.batch_size}
    )
    summary, info = network.summary, network.info
    epoch = Epoch(info.train_samples, request.batch_size)
    check_batches(summary, epoch)
    steps = total_steps(request.budget, info.train_samples, request.batch_size)
    runs, peak = [], (0, 0)
    for trial in trials:
        with under(trial.pointer):
            parsed = OPTIMIZERS.parse(trial.optimizer.name, trial.optimizer.params)
            check_run(parsed, steps)
            check_microbatches(summary, parsed, epoch)
            params = parsed.model_dump(mode="json")
            pinned = None
            if params.get("meta_checkpoint", UNTRAINED) != UNTRAINED:
                # By its id: an alias that is moved later must not change a run.
                family = family_of(trial.optimizer.name, params)
                with under("/params/meta_checkpoint"):
                    pinned = resolve(context.session, family, params["meta_checkpoint"])
                params["meta_checkpoint"] = pinned
        name, size = trial.optimizer.name, request.batch_size
        peak = max(peak, training_bytes(summary, info, name, parsed, size))
        config = TrainConfig(
            model=Component.model_validate(network.model),
            dataset={"name": request.dataset.name, "params": request.dataset.params},
            optimizer=Component(name=trial.optimizer.name, params=params),
            budget=request.budget,
            batch_size=request.batch_size,
            seed=trial.seed,
            target=request.target,
            evaluation=request.evaluation,
            device=request.resources.device,
            threads=request.resources.threads,
        )
        runs.append(
            PlannedRun(
                kind=Train.name,
                config=config.model_dump(mode="json", exclude_none=True),
                model=request.model.name,
                dataset=request.dataset.name,
                optimizer=trial.optimizer.name,
                seed=trial.seed,
                label=trial.label,
                info=info,
                meta_checkpoint_id=pinned,
            )
        )
    memory = network.check_memory(context, *peak)
    names = sorted({run.optimizer for run in runs})
    shown = ", ".join(names[:_NAMED_OPTIMIZERS]) + (", …" if len(names) > _NAMED_OPTIMIZERS else "")
    return Plan(
        name=f"{request.model.name} on {request.dataset.name} with {shown}"[:200],
        runs=runs,
        estimate=network.estimate(len(runs), memory, steps),
    )
