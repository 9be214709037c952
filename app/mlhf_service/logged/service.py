"""What a logger does with a run: make it, write points, end it. Nothing here commits.

A run that is logged has no place in the queue. Its lease is its logger's: where nothing comes for
``logger_seconds``, the sweeper ends it as failed. ``spool_offset`` holds the sequence number of
the last batch that was written.
"""

from typing import Any

from sqlalchemy.orm import Session
from sqlalchemy.orm.attributes import set_committed_value

from mlhf_service import tracing
from mlhf_service.context import Context
from mlhf_service.database import db_now, now
from mlhf_service.jobs import projects
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.jobs.state import announce_status, move, settle
from mlhf_service.keys.quotas import require_room
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import Conflict, Invalid, NotFound, document
from mlhf_service.logged.schemas import (
    MOST_METRICS,
    FinishRequest,
    LogBatch,
    LoggedRunCreate,
    LogState,
)
from mlhf_service.runs import chunks
from mlhf_service.runs import repository as runs
from mlhf_service.runs.blocks import Block
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import LOGGED, TERMINAL
from mlhf_service.webhooks.events import check_metrics

_OWNER = "logger"
_NAME_LENGTH = 200


def create(context: Context, request: LoggedRunCreate) -> Run:
    """Make a job of one run that is being trained already."""
    session, created = context.session, now()
    require_room(session, context.settings, context.caller, jobs=1)
    default = f"{request.model} on {request.dataset} with {request.optimizer}"
    name = request.name or default[:_NAME_LENGTH]
    project = projects.made_if_absent(session, request.project)
    job = Job(
        id=new_id("job"),
        tenant=context.caller.tenant,
        key_id=context.caller.key_id,
        kind=LOGGED,
        name=name,
        project_id=project,
        status="running",
        spec={"kind": LOGGED, **request.model_dump(mode="json", exclude_none=True)},
        queue=LOGGED,
        share=f"{context.caller.tenant}/{context.caller.key_id or ''}",
        priority=0,
        rank=0.0,
        ready_at=None,
        memory_bytes=0,
        traceparent=tracing.current(),
        created_at=created,
        started_at=created,
        event_seq=1,
        tags=[JobTag(key=key, value=value[:256]) for key, value in request.tags.items()],
    )
    run = Run(
        id=new_id("run"),
        tenant=job.tenant,
        key_id=job.key_id,
        job_id=job.id,
        position=0,
        name=name,
        project_id=project,
        kind=LOGGED,
        status="running",
        config=_config(request),
        model=request.model,
        dataset=request.dataset,
        optimizer=request.optimizer,
        seed=request.seed,
        queue=LOGGED,
        attempt=1,
        lease_owner=_OWNER,
        lease_expires_at=db_now() + context.settings.logger_seconds,
        available_at=0.0,
        spool_offset=0,
        tags=dict(request.tags) or None,
        environment={**request.environment, "logged": True},
        created_at=created,
        started_at=created,
    )
    session.add(job)
    session.flush()  # the job's row first: what follows refers to it
    session.add(run)
    set_committed_value(job, "runs", [run])
    session.add(jobs.first_event(job))
    announce_status(session, job)
    session.flush()
    return run


def append(context: Context, run_id: str, batch: LogBatch) -> LogState:
    """Write a batch, once, and renew the lease. Raises NotFound, Conflict and Invalid."""
    session = context.session
    _, run = _locked(session, run_id)
    if batch.points and batch.sequence == 0:
        raise Invalid.at("/sequence", "0 is a sign of life and has no points: count from 1")
    if batch.sequence <= run.spool_offset:  # written already, or no more than a sign of life
        _renew(context, run)
        return _state(run)
    if run.status in TERMINAL:
        raise Conflict(f"The run has already {run.status}: nothing can be logged any more.")
    if batch.sequence != run.spool_offset + 1:
        raise Conflict(
            f"Batch {batch.sequence} came after {run.spool_offset}: {run.spool_offset + 1} is "
            "missing. Does another program log to this run?"
        )
    points = [point.model_dump(mode="json") for point in batch.points]
    if points:
        _write(session, run, points)
    run.spool_offset = batch.sequence
    _renew(context, run)
    return _state(run)


def finish(context: Context, run_id: str, request: FinishRequest) -> Run:
    """End a run; one that has ended in the same way stays as it is."""
    session = context.session
    job, run = _locked(session, run_id)
    if run.status in TERMINAL:
        if run.status == request.status:
            return run
        raise Conflict(f"The run has already {run.status}: it cannot end as {request.status}.")
    reached = run.progress or {}
    run.totals = {
        "steps": reached.get("step", 0),
        "samples": reached.get("samples", 0),
        "epochs": reached.get("epoch", 0.0),
        "wall_seconds": reached.get("wall_seconds", 0.0),
        "cpu_seconds": reached.get("cpu_seconds"),
    }
    error = None
    if request.status == "failed":
        detail = request.error or "Its logger said no more."
        error = document(422, "logged", "The run failed where it was trained", detail)
    move(session, run, request.status, error)
    settle(session, job)
    session.flush()
    return run


def _locked(session: Session, run_id: str) -> tuple[Job, Run]:
    found = runs.get(session, run_id)
    if found is None:
        raise NotFound("There is no run of this id.")
    if found.kind != LOGGED:
        raise Conflict("The run is trained by this service: only logged runs can be written to.")
    job = jobs.lock(session, found.job_id)
    run = session.get(Run, run_id, populate_existing=True, with_for_update=True)
    if job is None or run is None:
        raise NotFound("There is no run of this id.")
    return job, run


def _write(session: Session, run: Run, points: list[dict[str, Any]]) -> None:
    block = Block.of_points(points)
    summary = block.summarize(run.summary or {})
    if len(summary) > MOST_METRICS:
        raise Invalid.at("/points", f"a run has at most {MOST_METRICS} metrics")
    run.summary = summary
    chunks.append(session, run.id, run.attempt, block)
    last = points[-1]
    total = run.config.get("total_steps")
    run.progress = {
        **{name: last[name] for name in ("step", "samples", "epoch", "wall_seconds")},
        "cpu_seconds": last["cpu_seconds"],
        "total_steps": total,
        "fraction": min(1.0, last["step"] / total) if total else 0.0,
    }
    data = {"run_id": run.id, "points": points[-1:], "progress": run.progress}
    add_event(session, run.job_id, "metrics", data)
    check_metrics(
        session, run.tenant, {"id": run.id, "job_id": run.job_id, "name": run.name}, points
    )


def _renew(context: Context, run: Run) -> None:
    if run.status == "running":
        run.lease_expires_at = db_now() + context.settings.logger_seconds
        context.session.flush()


def _state(run: Run) -> LogState:
    return LogState.model_validate(
        {"run_id": run.id, "status": run.status, "sequence": run.spool_offset}
    )


def _config(request: LoggedRunCreate) -> dict[str, Any]:
    """As the configuration of our own runs, by which comparisons group and warn."""
    config: dict[str, Any] = {
        "model": {"name": request.model},
        "dataset": {"name": request.dataset},
        "optimizer": {"name": request.optimizer},
        "seed": request.seed,
    }
    if request.batch_size is not None:
        config["batch_size"] = request.batch_size
    if request.total_steps is not None:
        config["total_steps"] = request.total_steps
    if request.config:
        config["config"] = request.config
    return config
