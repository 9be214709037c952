"""Runs that are held back: their start lies far in the future until others have ended."""

from sqlalchemy import exists, select
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs import repository
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.kinds.registry import KINDS, parse
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import HELD_UNTIL


def release(session: Session, job: Job) -> None:
    """Let go those runs of a job for which all that they waited for has ended or is gone.

    The caller holds the job's lock.
    """
    if job.kind not in KINDS or not KINDS[job.kind].holds_back:
        return
    waits = exists().where(Run.job_id == job.id, Run.available_at == HELD_UNTIL)
    if not session.scalar(select(waits)):
        return
    runs = repository.runs_of(session, job.id)
    held = [run for run in runs if _is_held(run)]
    for found in KINDS[job.kind].released(session, parse(job.spec), runs, held):
        for run in found.held:
            if found.best is not None:
                run.config = {**found.best.config, "seed": run.seed}
                run.meta_checkpoint_id = found.best.meta_checkpoint_id
            run.available_at = job.start_at.timestamp() if job.start_at else now().timestamp()
            if run.status == "queued":
                session.add(Outbox(queue=run.queue))
        told = {"level": "info", "message": found.message}
        add_event(session, job.id, "log", told | _of(found.best))
    session.flush()


def _of(run: Run | None) -> dict[str, str]:
    return {} if run is None else {"run_id": run.id}


def _is_held(run: Run) -> bool:
    return run.available_at == HELD_UNTIL and run.status in ("queued", "paused")
