"""What one run may ask of a deployment: its budget, and its threads."""

from mlhf.core.budget import Budget
from mlhf.core.errors import SpecError
from mlhf_service.context import Context
from mlhf_service.workers import repository as workers


def check_budget(context: Context, budget: Budget, steps: int | None, pointer: str = "") -> None:
    """Raise SpecError where a run would train longer than is allowed.

    Args:
        steps: Those that the budget comes to; None where time alone ends it.
        pointer: Where in the request the budget's owner stands.
    """
    settings = context.settings
    longest, most = settings.max_wall_seconds, settings.max_steps
    if budget.wall_seconds is not None and budget.wall_seconds > longest:
        raise SpecError(
            f"{pointer}/budget/wall_seconds",
            f"{budget.wall_seconds:,.0f} seconds are asked for; at most {longest:,.0f} are allowed "
            "here (MLHF_MAX_WALL_SECONDS).",
        )
    if steps is not None and steps > most:
        given = [n for n in ("steps", "epochs", "samples") if getattr(budget, n) is not None]
        raise SpecError(
            f"{pointer}/budget/{given[0]}",
            f"This comes to {steps:,} steps; at most {most:,} are allowed here (MLHF_MAX_STEPS).",
        )


def check_threads(context: Context, threads: int | None, queue: str) -> None:
    """Raise SpecError where a run asks for more threads than any worker has cores.

    Where no worker is there, and no limit is set, the one that comes has the last word: it
    takes as many as it has cores.
    """
    if threads is None:
        return
    most, why = context.settings.max_threads, "MLHF_MAX_THREADS"
    if most is None:
        alive = workers.alive(context.session, context.settings.lease_seconds, queue)
        most = max((worker.cores for worker in alive), default=threads)
        why = "the cores of the largest worker"
    if threads > most:
        raise SpecError(
            "/resources/threads",
            f"{threads:,} threads are asked for; at most {most:,} are allowed here ({why}).",
        )
