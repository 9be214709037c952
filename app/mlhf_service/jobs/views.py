"""Show a job: its row and its runs, as one object for clients."""

from collections import Counter

from mlhf_service.database import now
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.schemas import JobView, Progress, RunCounts
from mlhf_service.runs import outcomes
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import TERMINAL


def view(job: Job) -> JobView:
    """The job as clients see it; ``job.runs`` and ``job.tags`` are loaded."""
    return JobView.model_validate(
        {
            "id": job.id,
            "kind": job.kind,
            "name": job.name,
            "tags": {tag.key: tag.value for tag in job.tags},
            "status": job.status,
            "desired": job.desired,
            "attempts": max((run.attempt for run in job.runs), default=0),
            "progress": progress(job),
            "error": job.error,
            "run_ids": [run.id for run in job.runs],
            "runs": RunCounts(**Counter(run.status for run in job.runs)),
            "spec": job.spec,
            "retried_from": job.retried_from,
            "cloned_from": job.cloned_from,
            "created_at": job.created_at,
            "started_at": job.started_at,
            "finished_at": job.finished_at,
        }
    )


def progress(job: Job) -> Progress:
    """Sums over the runs; the fraction is the mean of theirs."""
    parts = [run.progress or {} for run in job.runs]
    totals = [part.get("total_steps") for part in parts]
    known = [t for t in totals if t is not None]
    fraction = sum(map(outcomes.fraction, job.runs)) / max(1, len(job.runs))
    # Nothing is left to do of a run that has ended, however far it came.
    spent = sum(_spent(run) for run in job.runs) / max(1, len(job.runs))
    eta = None
    if job.status == "running" and job.started_at is not None and 0 < spent < 1:
        elapsed = (now() - job.started_at).total_seconds()
        eta = elapsed * (1 - spent) / spent
    return Progress(
        step=sum(part.get("step", 0) for part in parts),
        total_steps=sum(known) if parts and len(known) == len(parts) else None,
        epoch=sum(part.get("epoch", 0.0) for part in parts),
        samples=sum(part.get("samples", 0) for part in parts),
        fraction=fraction,
        eta_seconds=eta,
    )


def _spent(run: Run) -> float:
    return 1.0 if run.status in TERMINAL else outcomes.fraction(run)
