"""What can be done with jobs. Nothing here commits: the request does, once."""

from functools import cache, partial
from typing import Any

from pydantic import ValidationError
from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from mlhf.core.errors import SpecError
from mlhf.core.explain import explain, telling_field
from mlhf_service import tracing
from mlhf_service.context import Context
from mlhf_service.database import now
from mlhf_service.jobs import line, projects, repository
from mlhf_service.jobs.kinds.caps import check_threads
from mlhf_service.jobs.kinds.protocol import Estimate, Plan
from mlhf_service.jobs.kinds.registry import kind_of, parse, request_schema, union_tags
from mlhf_service.jobs.kinds.requests import JobRequest
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.jobs.state import announce_status, move, settle
from mlhf_service.keys.quotas import require_room
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.inserting import insert_new
from mlhf_service.kit.problems import (
    Conflict,
    FieldError,
    Invalid,
    NotFound,
    in_one_line,
    pointer_of,
)
from mlhf_service.runs import repository as runs
from mlhf_service.runs import values
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import ACTIVE, HELD_UNTIL, LOGGED, TERMINAL


def plan(context: Context, request: JobRequest) -> Plan:
    """Check a request and plan its runs; what is wrong with it becomes a 422 problem."""
    try:
        if request.resources.device == "cuda" and not context.settings.has_gpu:
            message = "No GPU serves this deployment: use auto or cpu."
            raise SpecError("/resources/device", message)
        check_threads(context, request.resources.threads, queue_of(context, request))
        return kind_of(request).plan(context, request)
    except SpecError as error:
        raise Invalid.of(error) from None


def estimate(context: Context, request: JobRequest) -> Estimate:
    """Check a request, and say what it takes: also the seconds, where its like has been trained."""
    planned = plan(context, request)
    found = planned.estimate
    if found.total_steps is not None:
        pace = cache(partial(runs.pace, context.session))
        paces = [pace(run.optimizer, run.model, run.dataset) for run in planned.runs]
        known = [one for one in paces if one is not None]
        if len(known) == len(paces):
            found = found.model_copy(update={"seconds": found.total_steps * sum(known)})
    return found


def queue_of(context: Context, request: JobRequest) -> str:
    """The queue in which the runs of a request wait."""
    on_gpu = context.settings.has_gpu and request.resources.device != "cpu"
    return "gpu" if on_gpu else "cpu"


def create(
    context: Context,
    request: JobRequest,
    *,
    retried_from: str | None = None,
    cloned_from: str | None = None,
    only: set[int] | None = None,
) -> Job:
    """Make a job, its runs and the outbox row that announces them. ``runs`` are loaded.

    Args:
        only: Positions of the runs to make, where not all of them are wanted.
    """
    planned = plan(context, request)
    project = projects.of_request(context.session, request.project)
    session, created = context.session, now()
    runs = len(planned.runs) if only is None else len(only)
    require_room(session, context.settings, context.caller, jobs=1, runs=runs)
    queue = queue_of(context, request)
    available_at = request.start_at.timestamp() if request.start_at else 0.0
    identity = new_id("job")
    job = Job(
        id=identity,
        tenant=context.caller.tenant,
        key_id=context.caller.key_id,
        kind=kind_of(request).name,
        name=request.name or planned.name,
        status="queued",
        spec=request.model_dump(mode="json", exclude_none=True),
        retried_from=retried_from,
        cloned_from=cloned_from,
        queue=queue,
        share=f"{context.caller.tenant}/{context.caller.key_id or ''}",
        priority=request.priority,
        rank=line.at_submission(request.priority, request.start_at),
        ready_at=available_at,
        start_at=request.start_at,
        max_parallel_runs=request.max_parallel_runs,
        memory_bytes=planned.estimate.memory_bytes,
        traceparent=tracing.current(),
        project_id=project,
        notes=request.notes,
        created_at=created,
        event_seq=1,
        tags=[JobTag(job_id=identity, key=key, value=value) for key, value in request.tags.items()],
    )
    made = []
    for position, run in enumerate(planned.runs):
        if only is not None and position not in only:
            continue
        name = f"{job.name}: {run.label}" if run.label else job.name
        made.append(
            Run(
                id=new_id("run"),
                tenant=job.tenant,
                key_id=job.key_id,
                job_id=job.id,
                position=position,
                name=name[:250],
                kind=run.kind,
                status="queued",
                config=run.config,
                model=run.model,
                dataset=run.dataset,
                dataset_name=run.dataset_name if run.dataset_name != run.dataset else None,
                project_id=project,
                tags={**request.tags, **run.tags} or None,
                optimizer=run.optimizer,
                seed=run.seed,
                meta_checkpoint_id=run.meta_checkpoint_id,
                queue=queue,
                available_at=HELD_UNTIL if run.held else available_at,
                data_info=run.info.to_dict() if run.info else None,
                created_at=created,
            )
        )
    set_committed_value(job, "runs", made)
    bell = Outbox(queue=queue, traceparent=job.traceparent)
    searched = [row for run in made for row in values.rows(run, values.of_run(run))]
    insert_new(session, [job, *job.tags, *made, bell, repository.first_event(job)])
    values.write(session, searched)
    announce_status(session, job)
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
        # One that is logged from elsewhere has no trainer that could be asked.
        if run.status in ("queued", "paused") or (run.kind == LOGGED and run.status in ACTIVE):
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
    _require_ours(job, "paused")
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
    _require_ours(job, "retried")
    failed = {run.position for run in job.runs if run.status != "succeeded"}
    if not failed:
        raise Conflict("Every run of the job succeeded. Use clone to run it again.")
    request = parse(job.spec)
    again = kind_of(request).with_dependencies(request, failed)
    return create(context, request, retried_from=job.id, only=again)


def clone(context: Context, job_id: str, changes: dict[str, Any]) -> Job:
    """Make a new job of the same specification, with the given top-level fields replaced."""
    job = find(context.session, job_id)
    _require_ours(job, "cloned")
    try:
        request = parse({**job.spec, **changes})
    except ValidationError as error:
        problems = [
            FieldError(
                pointer="/changes"
                + pointer_of(("body", *e["loc"]), union_tags())
                + telling_field(e),
                detail=explain(e, request_schema()),
            )
            for e in error.errors()
        ]
        raise Invalid(in_one_line(problems), problems) from None
    return create(context, request, cloned_from=job.id)


def archive(session: Session, job_id: str) -> Job:
    """Hide a job and its runs from lists; one that has not ended is refused."""
    job = _locked(session, job_id)
    if job.status not in TERMINAL:
        raise Conflict(f"The job is {job.status}: only an ended job can be archived.")
    job.archived_at = job.archived_at or now()
    for run in repository.runs_of(session, job_id):
        run.archived_at = run.archived_at or job.archived_at
    return _fresh(session, job)


def unarchive(session: Session, job_id: str) -> Job:
    """Show a job and its runs in lists again."""
    job = _locked(session, job_id)
    job.archived_at = None
    for run in repository.runs_of(session, job_id):
        run.archived_at = None
    return _fresh(session, job)


def _require_ours(job: Job, what: str) -> None:
    if job.kind == LOGGED:
        raise Conflict(f"The job was trained elsewhere, and only logged here: it cannot be {what}.")


def _locked(session: Session, job_id: str) -> Job:
    job = repository.lock(session, job_id)
    if job is None:
        raise NotFound("There is no job of this id.")
    return job


def _fresh(session: Session, job: Job) -> Job:
    session.flush()
    session.expire_all()
    return find(session, job.id)
