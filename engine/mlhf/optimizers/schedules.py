"""Learning-rate schedules, as data. Needs no torch.

A schedule is a factor of the learning rate over the run's fraction, from 0 at its first step
towards 1 after its last, so that the same schedule fits a run of any length. Any schedule
may have a warm-up in front of it.
"""

import itertools
import math
from typing import Annotated, Literal

from pydantic import Field, field_validator

from mlhf.core.config import Strict
from mlhf.core.errors import SpecError

Fraction = Annotated[float, Field(ge=0, le=1)]


class _Schedule(Strict):
    """Parameters of every schedule."""

    warmup: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.0,
        description="Fraction of the run's steps over which the rate rises linearly to its full "
        "size; the schedule takes the rest.",
    )

    def factor(self, step: int, total_steps: int | None) -> float:
        """Return the rate's factor for a step, the first being 0.

        Args:
            step: How many steps were taken before this one.
            total_steps: How many the run has; None is only allowed if ``needs_length`` is
                false.
        """
        if total_steps is None:
            if self.needs_length:
                raise ValueError("this schedule needs the run's number of steps")
            return 1.0
        rising = math.ceil(self.warmup * total_steps - 1e-9)
        if step < rising:
            return (step + 1) / rising
        return self._at((step - rising) / max(1, total_steps - rising))

    @property
    def needs_length(self) -> bool:
        """Whether the factor depends on how long the run is."""
        return True

    def _at(self, fraction: float) -> float:
        raise NotImplementedError


class Constant(_Schedule):
    """The rate stays as it is."""

    type: Literal["constant"] = "constant"

    @property
    def needs_length(self) -> bool:
        return self.warmup > 0

    def _at(self, fraction: float) -> float:
        return 1.0


class Linear(_Schedule):
    """The rate changes on a straight line."""

    type: Literal["linear"] = "linear"
    final: Fraction = Field(default=0.0, description="The rate's factor at the end.")

    def _at(self, fraction: float) -> float:
        return 1 + (self.final - 1) * fraction


class Cosine(_Schedule):
    """The rate falls on half a cosine wave (Loshchilov & Hutter 2017, without restarts)."""

    type: Literal["cosine"] = "cosine"
    final: Fraction = Field(default=0.0, description="The rate's factor at the end.")

    def _at(self, fraction: float) -> float:
        return self.final + (1 - self.final) * (1 + math.cos(math.pi * fraction)) / 2


class Step(_Schedule):
    """The rate is multiplied at given points of the run."""

    type: Literal["step"] = "step"
    at: Annotated[list[Fraction], Field(min_length=1, max_length=100)] = Field(
        default=[0.5, 0.75], description="The points, as rising fractions of the run."
    )
    gamma: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.1, description="What the rate is multiplied by at each point."
    )

    @field_validator("at")
    @classmethod
    def _rising(cls, at: list[float]) -> list[float]:
        if any(b <= a for a, b in itertools.pairwise(at)):
            raise ValueError("the points must rise")
        return at

    def _at(self, fraction: float) -> float:
        return float(self.gamma ** sum(fraction >= point for point in self.at))


Schedule = Annotated[Constant | Linear | Cosine | Step, Field(discriminator="type")]


def check_length(schedule: Constant | Linear | Cosine | Step, total_steps: int | None) -> None:
    """Refuse a schedule for a run whose number of steps is not known.

    The fraction of the seconds would also do, but then the same configuration and seed would no
    longer give the same run.

    Raises:
        SpecError: at ``/params/schedule``.
    """
    if total_steps is None and schedule.needs_length:
        raise SpecError(
            "/params/schedule",
            f"A {schedule.type} schedule{' with warm-up' * (schedule.warmup > 0)} runs over the "
            "run's steps, and wall_seconds alone does not say how many there are: give the "
            "budget epochs, steps or samples as well.",
        )
