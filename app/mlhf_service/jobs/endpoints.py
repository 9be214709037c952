"""HTTP for jobs."""

import json
from collections.abc import AsyncIterator, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query, Request, Response, status
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.sse import EventSourceResponse, ServerSentEvent
from pydantic import BaseModel

from mlhf_service.api.dependencies import (
    Backend,
    CurrentBackend,
    CurrentDatabase,
    CurrentSettings,
    ReadSession,
    WriteSession,
)
from mlhf_service.api.room import RequireRoom
from mlhf_service.context import Context
from mlhf_service.jobs import idempotency, listed, repository, service, waiting
from mlhf_service.jobs.kinds.protocol import Estimate
from mlhf_service.jobs.kinds.registry import JobCreate, Kind
from mlhf_service.jobs.kinds.requests import MAX_PRIORITY
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.schemas import CloneRequest, JobView, LogLine
from mlhf_service.jobs.stream import Streams
from mlhf_service.jobs.views import made, view
from mlhf_service.kit.pagination import (
    Archived,
    Cursor,
    Limit,
    Order,
    Page,
    archived_only,
    page_of_ids,
)
from mlhf_service.runs.search import project_condition
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
_KNOWN: dict[int | str, dict[str, Any]] = {
    200: {"model": JobView, "description": "Known already (Idempotency-Key)."}
}


async def _body(request: Request) -> bytes:
    """What the client sent, before anything was made of it. It may be no JSON at all."""
    return await request.body()


_COLUMNS = {  # ids sort by time
    "created_at": Job.id,
    "name": Job.name,
    "status": Job.status,
    "priority": Job.priority,
}


@router.post(
    "",
    status_code=status.HTTP_201_CREATED,
    dependencies=[RequireRoom],
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
    body: Annotated[bytes, Depends(_body)],
    response: Response,
    backend: CurrentBackend,
    validate_only: bool = False,
    idempotency_key: IdempotencyKey = None,
) -> Any:
    """Queue a training run, a sweep of many, a meta-training, or an ablation."""
    if validate_only:
        with backend.read() as context:
            estimate = service.estimate(context, request)
        return JSONResponse(estimate.model_dump(mode="json"))

    def make(context: Context) -> Job:
        return service.create(context, request)

    return _create_once(backend, response, idempotency_key, json.loads(body), make, request)


def _create_once(
    backend: Backend,
    response: Response,
    key: str | None,
    document: Any,
    make: Callable[[Context], Job],
    normalized: BaseModel | None = None,
) -> JobView:
    """Make a job; or find that which was made when the same was asked with the same key."""
    with idempotency.reserved(backend.database, key, document, normalized) as earlier:
        if earlier is not None:
            response.status_code = status.HTTP_200_OK
            with backend.read() as context:
                shown = view(context.session, service.find(context.session, earlier))
        else:
            with backend.write() as context:
                job = make(context)
                idempotency.complete(context.session, key, job.id)
                shown = made(job)
    response.headers["Location"] = f"/v1/jobs/{shown.id}"
    return shown


@router.get("", response_model=Page[JobView])
def list_jobs(
    session: ReadSession,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    kind: Kind | None = None,
    tag: Annotated[
        list[Annotated[str, Query(max_length=330, pattern=r"^[A-Za-z0-9_.\-]{1,64}(:[^\x00]*)?$")]]
        | None,
        Query(max_length=32, description="`key` or `key:value`; all must match."),
    ] = None,
    optimizer: Filter = None,
    model: Filter = None,
    dataset: Annotated[
        Filter, Query(description="Jobs with runs on this data set, by name or an upload's id.")
    ] = None,
    project: Annotated[Filter, Query(description="Only those of this project, by name.")] = None,
    q: Annotated[Filter, Query(description="Part of the name.")] = None,
    priority: Annotated[
        int | None, Query(ge=-MAX_PRIORITY, le=MAX_PRIORITY, description="Exactly this one.")
    ] = None,
    archived: Archived = "false",
    sort: Literal[
        "created_at",
        "-created_at",
        "name",
        "-name",
        "status",
        "-status",
        "priority",
        "-priority",
    ] = "-created_at",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Response:
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
        priority=priority,
        archived=archived_only(archived),
    )
    if project is not None:
        inside = project_condition(session, [project], "project", Job.project_id)
        statement = statement.where(inside)
    order = Order(_COLUMNS[sort.lstrip("-")], Job.id, sort.startswith("-"))
    ids, following = page_of_ids(session, statement, order, limit, cursor)
    return Response(listed.page(session, ids, following), media_type="application/json")


def _split_tag(tag: str) -> tuple[str, str, str]:
    return tag.partition(":")


@router.get("/{job_id}")
def get_job(job_id: JobId, session: ReadSession, settings: CurrentSettings) -> JobView:
    """One job with its progress, and what it waits for."""
    job = service.find(session, job_id)
    shown = view(session, job)
    counts = shown.runs
    shown.waiting = waiting.reason(session, settings, job, counts.queued, counts.running)
    return shown


@router.post("/{job_id}/cancel")
def cancel_job(job_id: JobId, session: WriteSession) -> JobView:
    """Stop a job for good. What it has measured is kept."""
    return view(session, service.cancel(session, job_id))


@router.post("/{job_id}/pause")
def pause_job(job_id: JobId, session: WriteSession) -> JobView:
    """Write a checkpoint, stop, and give the worker free."""
    return view(session, service.pause(session, job_id))


@router.post("/{job_id}/resume")
def resume_job(job_id: JobId, backend: CurrentBackend) -> JobView:
    """Queue a paused job again; it goes on from its checkpoint."""
    with backend.write() as context:
        return view(context.session, service.resume(context.session, job_id))


@router.post(
    "/{job_id}/retry",
    status_code=status.HTTP_201_CREATED,
    responses=_KNOWN,
    dependencies=[RequireRoom],
)
def retry_job(
    job_id: JobId,
    response: Response,
    backend: CurrentBackend,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Make a new job of those runs of an ended job that did not succeed."""

    def make(context: Context) -> Job:
        return service.retry(context, job_id)

    return _create_once(backend, response, idempotency_key, {"retry": job_id}, make)


@router.post("/{job_id}/archive")
def archive_job(job_id: JobId, session: WriteSession) -> JobView:
    """Hide an ended job and its runs from lists. Nothing is deleted."""
    return view(session, service.archive(session, job_id))


@router.post("/{job_id}/unarchive")
def unarchive_job(job_id: JobId, session: WriteSession) -> JobView:
    """Show an archived job and its runs in lists again."""
    return view(session, service.unarchive(session, job_id))


@router.post(
    "/{job_id}/clone",
    status_code=status.HTTP_201_CREATED,
    responses=_KNOWN,
    dependencies=[RequireRoom],
)
def clone_job(
    job_id: JobId,
    response: Response,
    backend: CurrentBackend,
    request: CloneRequest | None = None,
    idempotency_key: IdempotencyKey = None,
) -> JobView:
    """Make a new job of the same specification, with changes where given."""
    changes = request.changes if request else {}

    def make(context: Context) -> Job:
        return service.clone(context, job_id, changes)

    asked = {"clone": job_id, "changes": changes}
    return _create_once(backend, response, idempotency_key, asked, make)


def _existing(job_id: JobId, database: CurrentDatabase) -> str:
    with database.read() as session:
        return service.find(session, job_id).id


async def _streams(request: Request) -> AsyncIterator[Streams]:
    streams: Streams = request.app.state.streams
    with streams.slot():
        yield streams


@router.get(
    "/{job_id}/events",
    response_class=EventSourceResponse,
)
async def job_events(
    job_id: Annotated[str, Depends(_existing)],  # before the stream, while a 404 can be sent
    streams: Annotated[Streams, Depends(_streams)],
    last_event_id: Annotated[str | None, Header(max_length=20)] = None,
) -> AsyncIterator[ServerSentEvent]:
    """Status, metrics and log as server-sent events, until the job has ended.

    Each has an id; a client that comes back with `Last-Event-ID` misses none.
    """
    after = int(last_event_id) if last_event_id and last_event_id.isdecimal() else 0
    async for event in streams.events(job_id, min(after, 2**62)):
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
