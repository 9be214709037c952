"""When a run ends, and how many steps that is. Needs no torch."""

import math
from dataclasses import dataclass
from typing import Annotated, Self

from pydantic import Field, model_validator

from mlhf.core.config import PositiveInt, Seconds, Strict
from mlhf.core.errors import DataError

# Keeps a rounding error in epochs x steps per epoch from adding a step.
_EPSILON = 1e-9


class Budget(Strict):
    """When a run ends: the first limit reached. At least one is needed."""

    epochs: Annotated[float, Field(gt=0, le=100_000)] | None = None
    steps: PositiveInt | None = None
    samples: PositiveInt | None = None
    wall_seconds: Seconds | None = Field(
        default=None, description="Training seconds; evaluation and checkpoints excluded."
    )

    @model_validator(mode="after")
    def _at_least_one(self) -> Self:
        if all(v is None for v in (self.epochs, self.steps, self.samples, self.wall_seconds)):
            raise ValueError("give at least one of epochs, steps, samples, wall_seconds")
        return self


@dataclass(frozen=True)
class Epoch:
    """How one pass over the training split divides into batches.

    The last batch may be smaller. If it would be a single sample it is left out, since batch
    normalization cannot train on one.

    Args:
        train_samples: Samples of the training split.
        batch_size: Samples per full batch, at least one.

    Raises:
        DataError: if the training split is empty.
    """

    train_samples: int
    batch_size: int

    def __post_init__(self) -> None:
        if self.train_samples < 1:
            raise DataError("The training split is empty.")

    @property
    def samples(self) -> int:
        """Samples used per epoch."""
        rest = self.train_samples % self.batch_size
        leave_out = rest == 1 and self.train_samples > 1 and self.batch_size > 1
        return self.train_samples - 1 if leave_out else self.train_samples

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return math.ceil(self.samples / self.batch_size)

    @property
    def batch_sizes(self) -> set[int]:
        """How many samples its batches have: that of the full ones, and of a smaller last one."""
        rest = self.samples % self.batch_size
        return {min(self.batch_size, self.samples), rest or self.batch_size}

    def steps_for_samples(self, samples: int) -> int:
        """Return after how many steps at least that many samples have been used."""
        epochs, rest = divmod(samples, self.samples)
        return epochs * self.steps + math.ceil(rest / self.batch_size)

    def steps_for_epochs(self, epochs: float) -> int:
        """Return after how many steps that many epochs are over; at least one."""
        return max(1, math.ceil(epochs * self.steps - _EPSILON))


def total_steps(budget: Budget, train_samples: int, batch_size: int) -> int | None:
    """Return after how many steps a run ends; None if time is its only limit."""
    epoch = Epoch(train_samples, batch_size)
    limits: list[int] = []
    if budget.steps is not None:
        limits.append(budget.steps)
    if budget.epochs is not None:
        limits.append(epoch.steps_for_epochs(budget.epochs))
    if budget.samples is not None:
        limits.append(epoch.steps_for_samples(budget.samples))
    return min(limits, default=None)
