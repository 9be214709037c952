"""What one training run is, as data. Needs no torch: the service checks it too."""

from typing import Annotated, Literal

from pydantic import Field

from mlhf.core.budget import Budget
from mlhf.core.config import Component, DatasetSource, PositiveInt, Strict

TargetMetric = Literal["train_loss", "test_loss", "train_accuracy", "test_accuracy", "running_loss"]


class Target(Strict):
    """A value to reach: losses count when at or below it, accuracies at or above."""

    metric: TargetMetric = "train_loss"
    value: Annotated[float, Field(allow_inf_nan=False)]
    stop: bool = Field(default=False, description="End the run as soon as it is reached.")


class Evaluation(Strict):
    """How often the whole training and test sets are measured (always at both ends)."""

    every_epochs: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    max_samples: PositiveInt | None = Field(
        default=None, description="Measure on at most this many samples of each split."
    )


class TrainConfig(Strict):
    """One training run, complete: the same config and seed give the same run."""

    model: Component
    dataset: DatasetSource
    optimizer: Component
    budget: Budget
    batch_size: Annotated[int, Field(ge=1, le=65_536, strict=True)] = 64
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] = 0
    target: Target | None = None
    evaluation: Evaluation = Field(default_factory=Evaluation)
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None
