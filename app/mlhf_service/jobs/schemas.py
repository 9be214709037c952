"""What a client sends to make a job, and what it is shown of one."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints

from mlhf.core.budget import Budget
from mlhf.core.config import Component, Strict
from mlhf.meta.config import MetaSettings, TaskGrid
from mlhf.training.config import Evaluation, Target
from mlhf_service.kit.problems import ProblemDocument

Status = Literal["queued", "running", "paused", "succeeded", "failed", "cancelled"]

# PostgreSQL cannot store NUL; the other control characters have no place in a name.
Text = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
TagKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
TaskName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.\-]{0,63}$")]
TagValue = Annotated[str, StringConstraints(max_length=256, pattern=r"^[^\x00-\x1f\x7f]*$")]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("seeds must differ from each other")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1, max_length=64), AfterValidator(_distinct)]


class Resources(Strict):
    """What a run needs of the machine it is trained on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = Field(
        default=None, description="CPU threads; the deployment's default when absent."
    )


class AnyRequest(Strict):
    """What every kind of job has."""

    name: Text | None = None
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=32)] = Field(default_factory=dict)
    resources: Resources = Field(default_factory=Resources)


class Training(Strict):
    """What is trained, and for how long."""

    model: Component
    dataset: Component
    budget: Budget
    batch_size: Annotated[int, Field(ge=1, le=65_536, strict=True)] = 64
    evaluation: Evaluation = Field(default_factory=Evaluation)


class JobRequest(AnyRequest, Training):
    """What jobs that train networks have."""

    target: Target | None = None


class TrainRequest(JobRequest):
    """One run of one optimizer."""

    kind: Literal["train"]
    optimizer: Component
    seed: Seed = 0


class SweepOptimizer(Component):
    """An optimizer, and the hyperparameters to try: every combination of ``grid``."""

    grid: dict[str, Annotated[list[Any], Field(min_length=1, max_length=64)]] = Field(
        default_factory=dict, max_length=8
    )


class SweepRequest(JobRequest):
    """Optimizers × their grids × seeds, each one run."""

    kind: Literal["sweep"]
    optimizers: Annotated[list[SweepOptimizer], Field(min_length=1, max_length=64)]
    seeds: Seeds = Field(default=[0])


class MetaTask(TaskGrid):
    """A grid of tasks on one data set. Only the training split is ever used."""

    dataset: Component


class MetaTrainRequest(AnyRequest, MetaSettings):
    """Meta-train a learned optimizer; what comes of it is a meta-checkpoint."""

    kind: Literal["meta_train"]
    tasks: Annotated[list[MetaTask], Field(min_length=1, max_length=64)]


class AblationTask(Training):
    """What ``mlhf`` of the variant ``paper`` trains while all forms of solving are measured."""

    name: TaskName | None = Field(
        default=None, description="What the table calls it; `<model>-<dataset>` when absent."
    )

    def called(self) -> str:
        return self.name or f"{self.model.name}-{self.dataset.name}"


class AblationRequest(AnyRequest):
    """What the learned preconditioner is worth (paper, section 6.3): tasks × seeds, each a run."""

    kind: Literal["ablation"]
    tasks: Annotated[list[AblationTask], Field(min_length=1, max_length=16)]
    seeds: Seeds = Field(default=[0])
    meta_checkpoint: Annotated[str, Field(min_length=1, max_length=200)] = Field(
        default="default",
        description="Of `mlhf` with variant `paper`: an id or alias; `none`: untrained networks.",
    )


Kind = Literal["train", "sweep", "meta_train", "ablation"]
JobCreate = Annotated[
    TrainRequest | SweepRequest | MetaTrainRequest | AblationRequest, Field(discriminator="kind")
]


class CloneRequest(Strict):
    """Fields of the specification to replace in the copy; the others stay."""

    changes: dict[str, Any] = Field(default_factory=dict)


class Progress(BaseModel):
    """How far a job is, summed over its runs."""

    step: int = 0
    total_steps: int | None = None
    epoch: float = 0.0
    samples: int = 0
    fraction: float = 0.0
    eta_seconds: float | None = None


class RunCounts(BaseModel):
    """How many runs of a job are in each state."""

    queued: int = 0
    running: int = 0
    paused: int = 0
    succeeded: int = 0
    failed: int = 0
    cancelled: int = 0


class JobView(BaseModel):
    """A job as clients see it."""

    id: str
    kind: Kind
    name: str
    tags: dict[str, str]
    status: Status
    desired: Literal["cancel", "pause"] | None = Field(
        description="What was asked for and has not yet come about."
    )
    attempts: int = Field(description="The largest number of times one of its runs was started.")
    progress: Progress
    error: ProblemDocument | None
    run_ids: list[str]
    runs: RunCounts
    spec: dict[str, Any]
    retried_from: str | None
    cloned_from: str | None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class Estimate(BaseModel):
    """What validation found: nothing was created."""

    valid: Literal[True] = True
    runs: int
    parameters: int
    activations_per_sample: int
    memory_bytes: int = Field(description="Estimated peak of one run.")
    input_shape: list[int]
    outputs: int
    train_samples: int
    test_samples: int
    total_steps: int | None = Field(description="Of one run; null when time alone ends it.")


class LogLine(BaseModel):
    """One line of a job's log."""

    seq: int
    at: datetime
    run_id: str | None
    level: str
    message: str
