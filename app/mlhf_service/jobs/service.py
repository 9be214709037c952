"""What can be done with jobs. Nothing here commits: the request does, once."""

from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy.orm import Session

from mlhf.core.errors import SpecError, error_message
from mlhf_service.database import now
from mlhf_service.jobs import repository
from mlhf_service.jobs.models import Job, JobTag, Outbox
from mlhf_service.jobs.schemas import AnyRequest, JobCreate
from mlhf_service.jobs.state import move, settle
from mlhf_service.jobs.transitions import TERMINAL
from mlhf_service.jobs.validation import Validated, validate
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import (
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    pointer_of,
)
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage

_REQUEST: TypeAdapter[Any] = TypeAdapter(JobCreate)


def check(
    session: Session, settings: Settings, storage: FolderStorage, request: AnyRequest
) -> Validated:
    """Validate a request; what is wrong with it becomes a 422 problem."""
    try:
        return validate(session, settings, storage, request)
    except SpecError as error:
        raise Invalid.of(error) from None


def create(
    session: Session,
    settings: Settings,
    storage: FolderStorage,
    request: AnyRequest,
    *,
    retried_from: str | None = None,
    cloned_from: str | None = None,
    only: set[int] | None = None,
) -> Job:
    """Make a job, its runs and the outbox row that announces them.

    Args:
        only: Positions of the runs to make, where not all of them are wanted.
    """
    validated = check(session, settings, storage, request)
    created = now()
    kind = request.kind  # type: ignore[attr-defined]
    job = Job(
        id=new_id("job"),
        kind=kind,
        name=request.name or _default_name(kind, validated),
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
    for new in validated.runs:
        if only is not None and new.position not in only:
            continue
        name = f"{job.name}: {new.label}" if kind in ("sweep", "ablation") else job.name
        session.add(
            Run(
                id=new_id("run"),
                job_id=job.id,
                position=new.position,
                name=name[:250],
                kind=new.kind,
                status="queued",
                config=new.config,
                model=new.model,
                dataset=new.dataset,
                optimizer=new.optimizer,
                seed=new.seed,
                meta_checkpoint_id=new.meta_checkpoint_id,
                queue=validated.queue,
                data_info=new.info.to_dict() if new.info else None,
                created_at=created,
            )
        )
    session.add(Outbox(queue=validated.queue, created_at=created))
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
            session.add(Outbox(queue=run.queue, created_at=now()))
    settle(session, job)
    return _fresh(session, job)


def retry(session: Session, settings: Settings, storage: FolderStorage, job_id: str) -> Job:
    """Make a new job of the runs that did not succeed. The old one stays as it ended."""
    job = find(session, job_id)
    if job.status not in TERMINAL:
        raise Conflict("The job has not ended yet: only an ended job can be retried.")
    failed = {run.position for run in job.runs if run.status != "succeeded"}
    if not failed:
        raise Conflict("Every run of the job succeeded. Use clone to run it again.")
    request = _REQUEST.validate_python(job.spec)
    return create(session, settings, storage, request, retried_from=job.id, only=failed)


def clone(
    session: Session,
    settings: Settings,
    storage: FolderStorage,
    job_id: str,
    changes: dict[str, Any],
) -> Job:
    """Make a new job of the same specification, with the given top-level fields replaced."""
    job = find(session, job_id)
    try:
        request = _REQUEST.validate_python({**job.spec, **changes})
    except ValidationError as error:
        problems = [
            FieldError(
                pointer="/changes" + pointer_of(("body", *e["loc"]))[0], detail=error_message(e)
            )
            for e in error.errors()
        ]
        raise Invalid("The changed specification is not valid.", problems) from None
    return create(session, settings, storage, request, cloned_from=job.id)


def _locked(session: Session, job_id: str) -> Job:
    job = repository.lock(session, job_id)
    if job is None:
        raise NotFound("There is no job of this id.")
    return job


def _fresh(session: Session, job: Job) -> Job:
    session.flush()
    session.expire_all()
    return find(session, job.id)


def _default_name(kind: str, validated: Validated) -> str:
    run = validated.runs[0]
    optimizers = sorted({run.optimizer for run in validated.runs})
    shown = ", ".join(optimizers[:4]) + (", …" if len(optimizers) > 4 else "")
    if kind == "meta_train":
        return f"meta-train {shown} with {run.model} on {run.dataset}"[:200]
    if kind == "ablation":
        tasks = ", ".join(dict.fromkeys(run.config["task"] for run in validated.runs))
        return f"ablation of the learned preconditioner: {tasks}"[:200]
    return f"{run.model} on {run.dataset} with {shown}"[:200]
