"""What can be done with jobs. Nothing here commits: the request does, once."""

from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session

from mlhf.core.errors import SpecError, error_message
from mlhf_service.context import Context
from mlhf_service.database import now
from mlhf_service.jobs import repository
from mlhf_service.jobs.kinds.protocol import Plan
from mlhf_service.jobs.kinds.registry import kind_of, parse, union_tags
from mlhf_service.jobs.kinds.requests import JobRequest
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.jobs.state import move, settle
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import (
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    pointer_of,
)
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import TERMINAL


def plan(context: Context, request: JobRequest) -> Plan:
    """Check a request and plan its runs; what is wrong with it becomes a 422 problem."""
    try:
        if request.resources.device == "cuda" and not context.settings.has_gpu:
            message = "No GPU serves this deployment: use auto or cpu."
            raise SpecError("/resources/device", message)
        return kind_of(request).plan(context, request)
    except SpecError as error:
        raise Invalid.of(error) from None


def create(
    context: Context,
    request: JobRequest,
    *,
    retried_from: str | None = None,
    cloned_from: str | None = None,
    only: set[int] | None = None,
) -> Job:
    """Make a job, its runs and the outbox row that announces them.

    Args:
        only: Positions of the runs to make, where not all of them are wanted.
    """
    planned = plan(context, request)
    session, created = context.session, now()
    queue = "gpu" if context.settings.has_gpu and request.resources.device != "cpu" else "cpu"
    job = Job(
        id=new_id("job"),
        kind=kind_of(request).name,
        name=request.name or planned.name,
        status="queued",
        spec=request.model_dump(mode="json", exclude_none=True),
        retried_from=retried_from,
        cloned_from=cloned_from,
        created_at=created,
        event_seq=0,
        tags=[JobTag(key=key, value=value) for key, value in request.tags.items()],
    )
    session.add(job)
    session.flush()
    for position, run in enumerate(planned.runs):
        if only is not None and position not in only:
            continue
        name = f"{job.name}: {run.label}" if run.label else job.name
        session.add(
            Run(
                id=new_id("run"),
                job_id=job.id,
                position=position,
                name=name[:250],
                kind=run.kind,
                status="queued",
                config=run.config,
                model=run.model,
                dataset=run.dataset,
                optimizer=run.optimizer,
                seed=run.seed,
                meta_checkpoint_id=run.meta_checkpoint_id,
                queue=queue,
                data_info=run.info.to_dict() if run.info else None,
                created_at=created,
            )
        )
    session.add(Outbox(queue=queue))
    repository.add_event(session, job.id, "status", {"status": "queued", "error": None})
    session.flush()
    session.expire(job)
    return job


def find(session: Session, job_id: str) -> Job:
    job = repository.get(session, job_id)
    if job is None:
        raise NotFound("There is no job of this id.")
    return job


def cancel(session: Session, job_id: str) -> Job:
    """Cancel what waits at once; ask trainers to stop at their next heartbeat.

    Cancelling a cancelled job again is no error; other terminal states never change.
    """
    job = _locked(session, job_id)
    if job.status == "cancelled":
        return find(session, job_id)
    if job.status in TERMINAL:
        raise Conflict(f"The job has already {job.status}: it cannot be cancelled.")
    job.desired = "cancel"
    for run in repository.runs_of(session, job_id):
        if run.status in ("queued", "paused"):
            move(session, run, "cancelled")
    settle(session, job)
    return _fresh(session, job)


def pause(session: Session, job_id: str) -> Job:
    """Pause what waits at once; trainers write a checkpoint and stop at their next heartbeat."""
    job = _locked(session, job_id)
    if job.status == "paused" or job.desired == "pause":
        return find(session, job_id)
    if job.status in TERMINAL:
        raise Conflict(f"The job has already {job.status}: it cannot be paused.")
    if job.desired == "cancel":
        raise Conflict("The job is being cancelled: it cannot be paused.")
    job.desired = "pause"
    for run in repository.runs_of(session, job_id):
        if run.status == "queued":
            move(session, run, "paused")
    settle(session, job)
    return _fresh(session, job)


def resume(session: Session, job_id: str) -> Job:
    """Queue what was paused; each run goes on from its last checkpoint."""
    job = _locked(session, job_id)
    if job.status in TERMINAL:
        raise Conflict(f"The job has already {job.status}. Use retry or clone to run it again.")
    if job.status != "paused" and job.desired != "pause":
        raise Conflict("The job is not paused.")
    job.desired = None
    for run in repository.runs_of(session, job_id):
        if run.status == "paused":
            move(session, run, "queued")
            session.add(Outbox(queue=run.queue))
    settle(session, job)
    return _fresh(session, job)


def retry(context: Context, job_id: str) -> Job:
    """Make a new job of the runs that did not succeed. The old one stays as it ended."""
    job = find(context.session, job_id)
    if job.status not in TERMINAL:
        raise Conflict("The job has not ended yet: only an ended job can be retried.")
    failed = {run.position for run in job.runs if run.status != "succeeded"}
    if not failed:
        raise Conflict("Every run of the job succeeded. Use clone to run it again.")
    return create(context, parse(job.spec), retried_from=job.id, only=failed)


def clone(context: Context, job_id: str, changes: dict[str, Any]) -> Job:
    """Make a new job of the same specification, with the given top-level fields replaced."""
    job = find(context.session, job_id)
    try:
        request = parse({**job.spec, **changes})
    except ValidationError as error:
        problems = [
            FieldError(
                pointer="/changes" + pointer_of(("body", *e["loc"]), union_tags()),
                detail=error_message(e),
            )
            for e in error.errors()
        ]
        raise Invalid("The changed specification is not valid.", problems) from None
    return create(context, request, cloned_from=job.id)


def _locked(session: Session, job_id: str) -> Job:
    job = repository.lock(session, job_id)
    if job is None:
        raise NotFound("There is no job of this id.")
    return job


def _fresh(session: Session, job: Job) -> Job:
    session.flush()
    session.expire_all()
    return find(session, job.id)
