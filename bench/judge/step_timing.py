"""How long an optimizer takes to reach a step, where its steps do not all cost the same."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class StepTiming:
    """Milliseconds that a run has taken by some of its steps.

    Interpolated between two marks, and extrapolated beyond the last one at its slope.

    Attributes:
        marks: Steps, rising, all above 0.
        taken: Milliseconds from the beginning of the run to each mark.
    """

    marks: Sequence[int]
    taken: Sequence[float]

    @property
    def mean(self) -> float:
        """Milliseconds a step, up to the last mark."""
        return self.taken[-1] / self.marks[-1]

    def seconds(self, step: float) -> float:
        """Return the seconds to the end of a step, counted from 1; it may be fractional."""
        steps, taken = [0, *self.marks], [0.0, *self.taken]
        i = next((i for i, mark in enumerate(steps) if mark >= step), len(steps) - 1)
        i = max(i, 1)
        each = (taken[i] - taken[i - 1]) / (steps[i] - steps[i - 1])
        return (taken[i] + (step - steps[i]) * each) / 1e3
