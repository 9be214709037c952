"""What one training run is, as data. Needs no torch: the service checks it too."""

from contextlib import suppress
from typing import Annotated, Any, Literal, Protocol, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mlhf.core.budget import Budget
from mlhf.core.config import Component, DatasetSource, PositiveInt, Strict, added_field
from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.data.specs import DATASETS, DatasetSpec, describe

TargetMetric = Literal[
    "train_loss",
    "test_loss",
    "train_accuracy",
    "test_accuracy",
    "train_relative_l2",
    "test_relative_l2",
    "train_average_precision",
    "test_average_precision",
    "running_loss",
]
LOSS_DESCRIPTION = "A name of `/v1/losses` and its parameters. Default: that of the data's task."
Dtype = Literal["float32", "float64"]


class Target(Strict):
    """A value to reach: losses and errors count when at or below it, accuracies at or above."""

    metric: TargetMetric = "train_loss"
    value: Annotated[float, Field(allow_inf_nan=False)]
    stop: bool = Field(default=False, description="End the run as soon as it is reached.")


class Evaluation(Strict):
    """How often, and on which samples, loss and accuracy are measured (always at both ends)."""

    every_epochs: Annotated[float, Field(gt=0, le=100_000)] = 1.0
    samples: Literal["auto", "all"] | PositiveInt = Field(
        default="auto",
        description="What is measured while the run trains: `all`, so many of each split, or "
        "`auto`: a fixed part of each split, the same for all runs on the data, that takes about "
        "`share` of the training time at most; sets of up to 4,096 samples whole. At the end "
        "the whole set is measured as well, as `whole_train_loss` and so on.",
    )
    share: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="With `auto`: of the training time, as it is estimated."
    )
    max_samples: PositiveInt | None = Field(
        default=None,
        description="Measure on at most this many samples of each split, at the end too. In place "
        "of `samples`.",
    )

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if self.max_samples is not None and self.samples != "auto":
            raise ValueError("give samples or max_samples, not both")
        return self


# Of equations: an epoch is one step there.
_STEPS_PER_EVALUATION = 10.0


class Trained(Protocol):
    """What says how a network is trained: the fields with defaults that depend on the data."""

    @property
    def dataset(self) -> Component: ...

    @property
    def loss(self) -> Component | None: ...

    @property
    def target(self) -> Target | None: ...

    batch_size: int
    evaluation: Evaluation
    dtype: Dtype

    @property
    def model_fields_set(self) -> set[str]: ...


def equation_of(config: Trained) -> DatasetSpec | None:
    """Return the family of a run's data where they are an equation, else None."""
    found = DATASETS.get(config.dataset.name)
    return found if found is not None and found.residuals else None


def fill_usual(config: Trained) -> None:
    """Fill in what was not said where the data are an equation.

    A step takes all points, numbers are float64, and every tenth step is followed by an
    evaluation.
    """
    dataset = equation_of(config)
    if dataset is None:
        return
    if "batch_size" not in config.model_fields_set:
        with suppress(SpecError):  # told where the data set is looked at
            config.batch_size = describe(dataset.name, config.dataset.params).train_samples
    if "dtype" not in config.model_fields_set:
        config.dtype = "float64"
    if "every_epochs" not in config.evaluation.model_fields_set:
        config.evaluation.every_epochs = _STEPS_PER_EVALUATION


def written(config: Trained, values: dict[str, Any]) -> dict[str, Any]:
    """Return a configuration's JSON values, with the dtype where its absence is no float32."""
    return values if equation_of(config) is None else values | {"dtype": config.dtype}


def check_residuals(config: Trained, info: DataInfo) -> None:
    """Check what only equations ask for: a step of all points, and evaluations of all.

    Args:
        config: The run, or a job's request.
        info: The equation's sizes.

    Raises:
        SpecError: at ``/batch_size``, ``/loss``, ``/evaluation`` or ``/target/metric``.
    """
    if equation_of(config) is None:
        return
    if config.batch_size != info.train_samples:
        raise SpecError(
            "/batch_size",
            f"a step takes all {info.train_samples:,} points of the equation, not "
            f"{config.batch_size:,}: leave batch_size out, and set dataset.params.points",
        )
    if config.loss is not None:
        raise SpecError(
            "/loss", "equations are trained on the squares of their residuals: leave it out"
        )
    if config.evaluation.max_samples is not None or isinstance(config.evaluation.samples, int):
        raise SpecError(
            "/evaluation",
            "equations are measured at all of their points: leave samples and max_samples out, "
            "and set dataset.params.test_points",
        )
    measured = ["train_loss", "test_loss", "running_loss"]
    measured += ["test_relative_l2"] if info.test_samples else []
    if config.target is not None and config.target.metric not in measured:
        raise SpecError(
            "/target/metric",
            f"{config.target.metric} is not measured here: take one of {', '.join(measured)}"
            + ("" if info.test_samples else " (no solution of this equation is known)"),
        )


class TrainConfig(Strict):
    """One training run, complete: the same config and seed give the same run."""

    model: Component
    dataset: DatasetSource
    optimizer: Component
    budget: Budget
    batch_size: Annotated[int, Field(ge=1, le=65_536, strict=True)] = Field(
        default=64, description="Samples of a step; of an equation (`pde`) all points when absent."
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] = 0
    loss: Component | None = added_field(None, description=LOSS_DESCRIPTION)
    target: Target | None = None
    evaluation: Evaluation = Field(default_factory=Evaluation)
    dtype: Dtype = added_field("float32")
    device: Literal["auto", "cpu", "cuda"] = "auto"
    threads: Annotated[int, Field(ge=1, le=1024, strict=True)] | None = None

    @model_validator(mode="after")
    def _usual(self) -> Self:
        fill_usual(self)
        return self

    @model_serializer(mode="wrap")
    def _written(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return written(self, handler(self))
