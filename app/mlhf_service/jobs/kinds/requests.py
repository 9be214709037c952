"""What requests of several kinds have in common."""

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    AwareDatetime,
    Field,
    SerializerFunctionWrapHandler,
    StringConstraints,
    model_serializer,
    model_validator,
)

from mlhf.core.budget import Budget
from mlhf.core.config import Component, Strict, added_field
from mlhf.training.config import (
    LOSS_DESCRIPTION,
    Dtype,
    Evaluation,
    Target,
    equation_of,
    fill_usual,
    written,
)
from mlhf_service.kit.text import PATTERN_OR_EMPTY, PlainText

TagKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
TagValue = Annotated[str, StringConstraints(max_length=256, pattern=PATTERN_OR_EMPTY)]
Tags = Annotated[dict[TagKey, TagValue], Field(max_length=32)]
Notes = Annotated[str, StringConstraints(max_length=20_000, pattern=r"^[^\x00]*$")]
Seed = Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)]


MAX_PRIORITY = 10
_LATEST_START_DAYS = 366


def _soon(time: datetime) -> datetime:
    latest = datetime.now(UTC) + timedelta(days=_LATEST_START_DAYS)
    if time > latest:
        raise ValueError(f"must be within {_LATEST_START_DAYS} days from now")
    try:
        return time.astimezone(UTC)
    except OverflowError:  # of the year 1, with an offset
        raise ValueError("is before all times that there are in UTC") from None


def _distinct(seeds: list[int]) -> list[int]:
    if len(set(seeds)) != len(seeds):
        raise ValueError("seeds must differ from each other")
    return seeds


Seeds = Annotated[list[Seed], Field(min_length=1, max_length=64), AfterValidator(_distinct)]


class Resources(Strict):
    """What a run needs of the machine it is trained on."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = Field(
        default=None,
        description="CPU threads, at most the cores of the worker's machine; the deployment's "
        "default when absent.",
    )


class JobRequest(Strict):
    """What every kind of job has, beside its ``kind``."""

    name: PlainText | None = None
    tags: Tags = Field(default_factory=dict)
    project: PlainText | None = Field(
        default=None, description="The name of a project that there is; `default` when absent."
    )
    notes: Notes | None = Field(default=None, description="Markdown, kept as it is written.")
    resources: Resources = Field(default_factory=Resources)
    priority: Annotated[int, Field(ge=-MAX_PRIORITY, le=MAX_PRIORITY, strict=True)] = Field(
        default=0,
        description="Among the jobs of the same key, the higher start first. A job that waits "
        "rises by one level in 15 minutes.",
    )
    start_at: Annotated[AwareDatetime, AfterValidator(_soon)] | None = Field(
        default=None, description="Not to start before this time (RFC 3339, with its offset)."
    )
    max_parallel_runs: Annotated[int, Field(ge=1, le=10_000, strict=True)] | None = Field(
        default=None, description="How many of its runs may be trained at once; all when absent."
    )


class Training(Strict):
    """What is trained, and for how long."""

    model: Component
    dataset: Component
    budget: Budget
    batch_size: Annotated[int, Field(ge=1, le=65_536, strict=True)] = Field(
        default=64, description="Samples of a step; of an equation (`pde`) all points when absent."
    )
    evaluation: Evaluation = Field(default_factory=Evaluation)


class TrainingRequest(JobRequest, Training):
    """What jobs that train one network on one data set have."""

    loss: Component | None = added_field(None, description=LOSS_DESCRIPTION)
    target: Target | None = None
    dtype: Dtype = added_field(
        "float32",
        description="Of parameters, inputs and regression targets. `float64` is for errors below "
        "1e-6 or so: steps take about twice the time and memory. Equations (`pde`) have it unless "
        "it is said otherwise.",
    )

    @model_validator(mode="after")
    def _usual(self) -> Self:
        fill_usual(self)
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        values = written(self, handler(self))
        if equation_of(self) is not None:
            values.pop("batch_size", None)  # follows from the points, which a clone may change
        return values
