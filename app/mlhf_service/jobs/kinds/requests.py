"""What requests of several kinds have in common."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StringConstraints

from mlhf.core.budget import Budget
from mlhf.core.config import Component, Strict
from mlhf.training.config import Evaluation, Target

# PostgreSQL cannot store NUL; the other control characters have no place in a name.
Text = Annotated[
    str, StringConstraints(min_length=1, max_length=200, pattern=r"^[^\x00-\x1f\x7f]+$")
]
TagKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.\-]{1,64}$")]
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
        default=None,
        description="CPU threads, at most the cores of the worker's machine; the deployment's "
        "default when absent.",
    )


class JobRequest(Strict):
    """What every kind of job has, beside its ``kind``."""

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


class TrainingRequest(JobRequest, Training):
    """What jobs that train one network on one data set have."""

    target: Target | None = None
