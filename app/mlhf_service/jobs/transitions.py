"""Which changes of a run's status are legal, and why; and what a job's status is."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import ClassVar

from mlhf_service.runs.status import ACTIVE, TERMINAL


class Rule:
    """A legal change of a run's status."""

    FROM: ClassVar[frozenset[str]]
    TO: ClassVar[str]


class Start(Rule):
    """A worker claimed the run. Only a queued run can be claimed, so never twice."""

    FROM, TO = frozenset({"queued"}), "running"


class Requeue(Rule):
    """The trainer stopped before its end (shutdown, crash, lost lease), or was resumed."""

    FROM, TO = frozenset({"running", "paused"}), "queued"


class Pause(Rule):
    """The user asked; a running trainer has written its checkpoint first."""

    FROM, TO = frozenset({"queued", "running"}), "paused"


class Succeed(Rule):
    """The budget or the target was reached. Only a running trainer can report that."""

    FROM, TO = frozenset({"running"}), "succeeded"


class Fail(Rule):
    """It diverged, could not be run, or was started too often."""

    FROM, TO = frozenset({"running"}), "failed"


class Cancel(Rule):
    """The user asked. What has ended stays as it ended."""

    FROM, TO = ACTIVE, "cancelled"


RULES: dict[str, type[Rule]] = {
    rule.TO: rule for rule in (Start, Requeue, Pause, Succeed, Fail, Cancel)
}


def allowed(before: str, after: str) -> bool:
    """Whether a run may go from ``before`` to ``after``."""
    return before in RULES[after].FROM


def job_status(
    statuses: Iterable[str] | Mapping[str, int], cancelling: bool, diverged: int = 0
) -> str:
    """The status of a job from those of its runs.

    Args:
        statuses: The status of each run, or how many have it.
        cancelling: Whether its user asked to cancel it.
        diverged: How many of the failed runs diverged. In a sweep that is a result, not
            a fault: it fails only if all diverged, or one failed for another reason.
    """
    counts = Counter(statuses)
    total = counts.total()
    ended = sum(counts[s] for s in TERMINAL)
    if ended == total:
        if counts["cancelled"] or (cancelling and not counts["succeeded"] + counts["failed"]):
            return "cancelled"
        if counts["failed"] > diverged or counts["failed"] == total:
            return "failed"
        return "succeeded"
    if counts["running"]:
        return "running"
    if counts["queued"]:
        return "running" if ended and not counts["paused"] else "queued"
    return "paused"
