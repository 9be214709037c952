"""How a run ends."""

from dataclasses import dataclass
from typing import Literal

from mlhf.core.metrics import Summary

Status = Literal["succeeded", "diverged", "interrupted"]


@dataclass(frozen=True)
class RunResult:
    """A run's end.

    Attributes:
        status: ``succeeded``, ``diverged`` (a loss was not finite, or too many steps in a row
            were not) or ``interrupted`` (``should_stop`` was true; there is a checkpoint if
            there is a run folder).
        reason: ``budget``, ``target``, or a sentence.
        totals: Steps, samples, epochs, and the seconds of each kind.
        summary: Each metric's last and best value, and the best one's step.
    """

    status: Status
    reason: str
    totals: dict[str, float]
    summary: dict[str, Summary]
