"""How long an optimizer takes to come to a step, where its steps do not all cost the same."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Pace:
    """Milliseconds that a run has taken by some of its steps.

    Between two of them the steps count alike, and after the last as those before it.

    Attributes:
        marks: Steps, rising, all above 0.
        taken: Milliseconds from the run's beginning to each.
    """

    marks: Sequence[int]
    taken: Sequence[float]

    @classmethod
    def steady(cls, milliseconds: float) -> "Pace":
        """Return that of steps which all take so many milliseconds."""
        return cls((1,), (milliseconds,))

    @property
    def mean(self) -> float:
        """Milliseconds a step, up to the last mark."""
        return self.taken[-1] / self.marks[-1]

    def seconds(self, step: float) -> float:
        """Return the seconds to the end of a step, counted from 1; a part of a step counts."""
        steps, taken = [0, *self.marks], [0.0, *self.taken]
        i = next((i for i, mark in enumerate(steps) if mark >= step), len(steps) - 1)
        i = max(i, 1)
        each = (taken[i] - taken[i - 1]) / (steps[i] - steps[i - 1])
        return (taken[i] + (step - steps[i]) * each) / 1e3
