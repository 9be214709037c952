"""What a line of a comparison is called: its group, over how many seeds, and what went wrong."""

from collections.abc import Mapping

from mlhf_service.comparisons.schemas import ComparedGroup, ComparedRun


def legend(group: ComparedGroup, runs: Mapping[str, ComparedRun], length: int | None = None) -> str:
    """The label of a group's line, its own part at most ``length`` characters long."""
    label = group.label if length is None or len(group.label) <= length else group.label[:length]
    label += "…" if label != group.label else ""
    facts = [] if group.n == 1 and not group.repeats else [seeds(group)]
    diverged = sum(runs[run_id].diverged_at is not None for run_id in group.run_ids)
    if diverged:
        facts.append(f"{diverged} diverged" if len(group.run_ids) > 1 else "diverged")
    return f"{label} ({', '.join(facts)})" if facts else label


def seeds(group: ComparedGroup) -> str:
    """How many seeds there are, and how many runs where some repeat a seed."""
    text = f"{group.n} seed{'s' if group.n > 1 else ''}"
    return f"{text}, {len(group.run_ids)} runs" if group.repeats else text
