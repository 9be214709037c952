"""What a logger sends, and what it is told."""

from itertools import pairwise
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, StringConstraints, field_validator

from mlhf.core.config import Strict
from mlhf_service.jobs.kinds.requests import Seed, TagKey, TagValue
from mlhf_service.kit.text import PlainText
from mlhf_service.runs.metrics import Number
from mlhf_service.runs.status import Status

MOST_POINTS = 5000  # in a batch
MOST_METRICS = 200  # of a run
_MOST_SETTINGS = 200
_DEEPEST = 8

Metric = Annotated[str, StringConstraints(pattern=r"^[a-z0-9_]{1,64}$")]
_Name = Annotated[str, StringConstraints(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f]+$")]
_Count = Annotated[int, Field(ge=0, le=2**62)]
_Seconds = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]


def _flat_enough(value: Any, depth: int = 0) -> Any:
    if depth > _DEEPEST:
        raise ValueError(f"is nested more than {_DEEPEST} levels deep")
    if isinstance(value, dict | list):
        for one in value.values() if isinstance(value, dict) else value:
            _flat_enough(one, depth + 1)
    return value


Config = Annotated[
    dict[Annotated[str, StringConstraints(max_length=100)], Any],
    Field(max_length=_MOST_SETTINGS),
    AfterValidator(_flat_enough),
]


class LoggedRunCreate(Strict):
    """A run that is trained elsewhere."""

    name: PlainText | None = Field(default=None, description="Default: optimizer, model, data set.")
    project: PlainText | None = Field(
        default=None, description="The name of its project, which is made if there is none of it."
    )
    tags: Annotated[dict[TagKey, TagValue], Field(max_length=32)] = Field(default_factory=dict)
    optimizer: _Name = Field(default="unknown", description="What trains it; groups runs.")
    model: _Name = "unknown"
    dataset: _Name = "unknown"
    seed: Seed = 0
    batch_size: Annotated[int, Field(ge=1, le=2**31, strict=True)] | None = None
    config: Config = Field(
        default_factory=dict,
        description="Hyperparameters and whatever else tells runs apart, as JSON.",
    )
    environment: Config = Field(
        default_factory=dict,
        description="Where it is trained. `device_name`, `threads`, `torch` and `data_digest` are "
        "compared as those of our own runs.",
    )
    total_steps: Annotated[int, Field(ge=1, le=2**62, strict=True)] | None = Field(
        default=None, description="How many steps it will have: its progress is told by that."
    )


class Point(Strict):
    """What was measured at one place of a training."""

    step: _Count
    samples: _Count
    epoch: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    wall_seconds: _Seconds = Field(description="Of training, since its start.")
    cpu_seconds: _Seconds | None = None
    values: Annotated[dict[Metric, Number], Field(min_length=1, max_length=MOST_METRICS)]


class LogBatch(Strict):
    """Points in the order in which they were measured; an empty batch says it is alive."""

    sequence: Annotated[int, Field(ge=0, le=2**62, strict=True)] = Field(
        description="Counts the batches of a run from 1. One that was written is not written "
        "again. 0 with no points is only a sign of life."
    )
    points: Annotated[list[Point], Field(max_length=MOST_POINTS)] = Field(default_factory=list)

    @field_validator("points")
    @classmethod
    def _ascending(cls, points: list[Point]) -> list[Point]:
        for number, (before, after) in enumerate(pairwise(points), 1):
            if after.step < before.step:
                raise ValueError(f"steps must ascend: point {number} has {after.step}")
        return points


class LogState(BaseModel):
    """What a logger is told."""

    run_id: str
    status: Status = Field(description="Cancelled: stop training, for nothing is taken any more.")
    sequence: int = Field(description="The last batch that is written.")


class FinishRequest(Strict):
    """How a run ended."""

    status: Literal["succeeded", "failed", "cancelled"] = "succeeded"
    error: Annotated[str, StringConstraints(max_length=2000)] | None = Field(
        default=None, description="Why it failed."
    )
