"""HTTP for jobs."""

from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Response, status
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent

from mlhf_service.api.dependencies import (
    CurrentBackend,
    CurrentDatabase,
    ReadSession,
    WriteSession,
)
from mlhf_service.jobs import idempotency, repository, service, stream
from mlhf_service.jobs.kinds.protocol import Estimate
from mlhf_service.jobs.kinds.registry import JobCreate, Kind
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.schemas import CloneRequest, JobView, LogLine
from mlhf_service.jobs.views import view
from mlhf_service.kit.pagination import Cursor, Limit, Order, Page, paginate
from mlhf_service.runs.status import Status

router = APIRouter(prefix="/jobs", tags=["jobs"])

JobId = Annotated[str, Path(pattern=r"^job_[0-9a-z]{1,36}$", description="Id of a job.")]
Filter = Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
IdempotencyKey = Annotated[
    str | None,
    Header(
        min_length=1,
        max_length=255,
        pattern=r"^[\x21-\x7e]+$",
        description="The same key and body give the same job.",
    ),
]
_COLUMNS = {"created_at": Job.id, "name": Job.name, "status": Job.status}  # ids sort by time


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    response_model=JobView,
    responses={
        200: {
            "model": JobView | Estimate,
            "description": "Known already (Idempotency-Key), or validated only.",
        }
    },
)
def create_job(
    request: JobCreate,
    response: Response,
    backend: CurrentBackend,
    validate_only: bool = False,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Queue a training run, a sweep of many, a meta-training, or an ablation."""
    if validate_only:
        with backend.read() as context:
            estimate = service.plan(context, request).estimate
        return JSONResponse(estimate.model_dump(mode="json"))
    with idempotency.reserved(backend.database, idempotency_key, request) as earlier:
        if earlier is not None:
            response.status_code = status.HTTP_200_OK
            with backend.read() as context:
                return _created(response, service.find(context.session, earlier))
        with backend.write() as context:
            job = service.create(context, request)
            idempotency.complete(context.session, idempotency_key, job.id)
            return _created(response, job)


def _created(response: Response, job: Job) -> JobView:
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return view(job)


@router.get("")
def list_jobs(
    session: ReadSession,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    kind: Kind | None = None,
    tag: Annotated[
        list[Annotated[str, Query(max_length=330, pattern=r"^[^\x00]+$")]] | None,
        Query(max_length=32, description="`key` or `key:value`; all must match."),
    ] = None,
    optimizer: Filter = None,
    model: Filter = None,
    dataset: Filter = None,
    q: Annotated[Filter, Query(description="Part of the name.")] = None,
    sort: Literal[
        "created_at", "-created_at", "name", "-name", "status", "-status"
    ] = "-created_at",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[JobView]:
    """List jobs, the newest first unless told otherwise."""
    tags = [(key, value if colon else None) for key, colon, value in map(_split_tag, tag or [])]
    statement = repository.search(
        status=status or (),
        kind=kind,
        tags=tags,
        optimizer=optimizer,
        model=model,
        dataset=dataset,
        q=q,
    )
    order = Order(_COLUMNS[sort.lstrip("-")], Job.id, sort.startswith("-"))
    return paginate(session, statement, order, limit, cursor, view)


def _split_tag(tag: str) -> tuple[str, str, str]:
    return tag.partition(":")


@router.get("/{job_id}")
def get_job(job_id: JobId, session: ReadSession) -> JobView:
    """One job with its progress."""
    return view(service.find(session, job_id))


@router.post("/{job_id}/cancel")
def cancel_job(job_id: JobId, session: WriteSession) -> JobView:
    """Stop a job for good. What it has measured is kept."""
    return view(service.cancel(session, job_id))


@router.post("/{job_id}/pause")
def pause_job(job_id: JobId, session: WriteSession) -> JobView:
    """Write a checkpoint, stop, and give the worker free."""
    return view(service.pause(session, job_id))


@router.post("/{job_id}/resume")
def resume_job(job_id: JobId, backend: CurrentBackend) -> JobView:
    """Queue a paused job again; it goes on from its checkpoint."""
    with backend.write() as context:
        return view(service.resume(context.session, job_id))


@router.post("/{job_id}/retry", status_code=status.HTTP_201_CREATED)
def retry_job(job_id: JobId, response: Response, backend: CurrentBackend) -> JobView:
    """Make a new job of those runs of an ended job that did not succeed."""
    with backend.write() as context:
        return _created(response, service.retry(context, job_id))


@router.post("/{job_id}/clone", status_code=status.HTTP_201_CREATED)
def clone_job(
    job_id: JobId,
    response: Response,
    backend: CurrentBackend,
    request: CloneRequest | None = None,
) -> JobView:
    """Make a new job of the same specification, with changes where given."""
    changes = request.changes if request else {}
    with backend.write() as context:
        return _created(response, service.clone(context, job_id, changes))


def _existing(job_id: JobId, database: CurrentDatabase) -> str:
    with database.read() as session:
        return service.find(session, job_id).id


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
    responses={200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}}},
)
async def job_events(
    job_id: Annotated[str, Depends(_existing)],  # before the stream, while a 404 can be sent
    database: CurrentDatabase,
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Status, metrics and log as server-sent events, until the job has ended.

    Each has an id; a client that comes back with `Last-Event-ID` misses none.
    """
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
    async for event in stream.events(database, job_id, min(after, 2**62)):
        yield event


@router.get(
    "/{job_id}/logs",
    response_model=Page[LogLine],
    responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
)
def job_logs(
    job_id: JobId,
    session: ReadSession,
    after: Annotated[int, Query(ge=0, le=2**62, description="Lines after this number.")] = 0,
    limit: Limit = 500,
    format: Literal["json", "text"] = "json",
) -> Any:
    """The job's log, oldest line first."""
    service.find(session, job_id)
    rows = repository.events_after(session, job_id, after, limit + 1, "log")
    lines = [
        LogLine(
            seq=row.seq,
            at=row.at,
            run_id=row.data.get("run_id"),
            level=row.data.get("level", "info"),
            message=row.data.get("message", ""),
        )
        for row in rows[:limit]
    ]
    if format == "text":
        text = "".join(
            f"{line.at.isoformat()} {line.level:7} {line.run_id or '-'} {line.message}\n"
            for line in lines
        )
        return PlainTextResponse(text)
    return Page(data=lines, next_cursor=str(lines[-1].seq) if len(rows) > limit else None)
