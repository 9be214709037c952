"""What became of a run: how far it is, where it diverged, whether it reached its target."""

from typing import Any

from mlhf_service.runs.models import Run
from mlhf_service.runs.schemas import Position, TargetStatus
from mlhf_service.runs.status import DIVERGED


def diverged(run: Run) -> bool:
    """Whether it ended because its loss was not finite."""
    return run.status == "failed" and (run.error or {}).get("type") == DIVERGED


def diverged_at(run: Run) -> Position | None:
    """The first step whose loss was not finite; nothing after it counts."""
    return end(run) if diverged(run) else None


def end(run: Run) -> Position | None:
    """How far a run had come when it ended; None before, and where its trainer was lost."""
    if not run.totals or "steps" not in run.totals:
        return None
    return Position(
        step=round(run.totals["steps"]),
        samples=round(run.totals["samples"]),
        epoch=run.totals["epochs"],
        wall_seconds=run.totals["wall_seconds"],
        cpu_seconds=run.totals.get("cpu_seconds"),
    )


def fraction(run: Run) -> float:
    """How much of the run is done, from 0 to 1. What a target ended early is whole."""
    if run.status == "succeeded":
        return 1.0
    return float((run.progress or {}).get("fraction", 0.0))


def progress(run: Run) -> dict[str, Any] | None:
    """How far it is, as it reported; None before it has."""
    return None if run.progress is None else {**run.progress, "fraction": fraction(run)}


def target_status(run: Run, reached: bool, measured: bool) -> TargetStatus:
    """Where a run is with a target. Only a run that has ended of itself can have missed it.

    Args:
        reached: Whether a measurement was at or beyond the target.
        measured: Whether the run measured the target's metric at all.
    """
    if reached:
        return "reached"
    if diverged(run):
        return "missed"
    if run.status == "succeeded":
        return "missed" if measured else "not_measured"
    return "unfinished"
