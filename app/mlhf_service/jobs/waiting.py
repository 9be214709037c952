"""Why a job's next run has not started yet, in a sentence."""

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs.models import Job
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import LOGGED
from mlhf_service.settings import Settings
from mlhf_service.workers import repository as workers


def reason(session: Session, settings: Settings, job: Job, queued: int, running: int) -> str | None:
    """What a job with so many queued and running runs waits for; None where none is queued."""
    if not queued:
        return None
    if job.start_at is not None and job.start_at > now():
        return f"It is scheduled to start at {job.start_at:%Y-%m-%d %H:%M:%S} UTC."
    if job.max_parallel_runs is not None and running >= job.max_parallel_runs:
        return f"{running} of its runs are training, as many as its max_parallel_runs allows."
    there = workers.alive(session, settings.lease_seconds, job.queue)
    if not there:
        return f"No worker of the queue {job.queue} is there. It starts when one is."
    largest = max(worker.memory_bytes for worker in there)
    if job.memory_bytes > largest:
        return (
            f"One of its runs needs about {job.memory_bytes / 2**30:.1f} GiB, and the largest "
            f"worker that is there has {largest / 2**30:.1f} GiB for runs. It starts when a larger "
            "one is; or cancel it, and take a smaller network or batch_size."
        )
    return _limit(session, settings, job) or "It waits for its turn."


def _limit(session: Session, settings: Settings, job: Job) -> str | None:
    """The limit of its key or its tenant that is reached."""
    for limit, what, own in (
        (settings.max_running_per_key, "key", Job.share == job.share),
        (settings.max_running_per_tenant, "tenant", Job.tenant == job.tenant),
    ):
        if limit is None:
            continue
        of_owner = select(func.count()).select_from(Run).join(Job, Job.id == Run.job_id)
        trains = Run.status == "running", Run.kind != LOGGED
        count = session.scalar(of_owner.where(*trains, own)) or 0
        if count >= limit:
            return f"{count} runs of its {what} are training, as many as may at once."
    return None
