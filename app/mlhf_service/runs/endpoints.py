"""HTTP for runs."""

from collections.abc import Iterable
from functools import partial
from itertools import chain
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from mlhf_service.api.dependencies import CurrentDatabase, CurrentStorage, ReadSession, WriteSession
from mlhf_service.kit import downloads
from mlhf_service.kit.pagination import (
    Archived,
    Cursor,
    Limit,
    Page,
    archived_only,
)
from mlhf_service.runs import (
    chunks,
    curve_files,
    curve_parquet,
    reading,
    repository,
    run_table,
    search,
    service,
)
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import DESCRIPTION, METHOD, MIN_POINTS
from mlhf_service.runs.metrics import Axis
from mlhf_service.runs.query import MAX_LENGTH
from mlhf_service.runs.schemas import (
    ArtifactList,
    Curves,
    RunFields,
    RunItem,
    RunView,
)
from mlhf_service.runs.status import Status

router = APIRouter(prefix="/runs", tags=["runs"])

RunId = Annotated[str, Path(max_length=40, description="Id of a run.")]
ArtifactName = Annotated[str, Path(max_length=200, description="Name of a file of the run.")]
Filter = Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Metric = Annotated[str, Query(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$")]
Tag = Annotated[str, Query(max_length=330, pattern=r"^[A-Za-z0-9_.\-]{1,64}(:[^\x00]*)?$")]
_FILTER = (
    "Which runs, such as `optimizer.lr < 0.01 and test_loss.best <= 0.3 and tags.team = 'vision'`. "
    "Fields are those of `/v1/runs/fields`; `=`, `!=`, `<`, `<=`, `>`, `>=`, `~` (part of a text), "
    "`in (…)`, `is null`, `and`, `or`, `not` and parentheses. A metric is its last value, or with "
    "`.best` its best. Apart from `is null`, a run without a value meets no comparison."
)
_STEP: dict[str, Any] = {"ge": -(2**63), "le": 2**63 - 1}
_CACHE = "private, no-cache"
_FILES = {
    "csv": (curve_files.csv_pieces, curve_files.CSV),
    "parquet": (curve_parquet.pieces, curve_parquet.PARQUET),
}
_BINARY = {"type": "string", "format": "binary"}


@router.get(
    "",
    response_model=Page[RunItem],
    responses={200: {"content": {"text/csv": {"schema": {"type": "string"}}}}},
)
def list_runs(
    session: ReadSession,
    database: CurrentDatabase,
    filter: Annotated[
        str | None,
        Query(min_length=1, max_length=MAX_LENGTH, pattern=r"^[^\x00]+$", description=_FILTER),
    ] = None,
    job_id: Annotated[Filter, Query(description="Only the runs of this job.")] = None,
    project: Annotated[Filter, Query(description="Only those of this project, by name.")] = None,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    optimizer: Annotated[Filter, Query(description="Only those of this optimizer.")] = None,
    model: Annotated[Filter, Query(description="Only those of this model.")] = None,
    dataset: Annotated[
        Filter, Query(description="Only those on this data set, by its name or an upload's id.")
    ] = None,
    tag: Annotated[
        list[Tag] | None,
        Query(max_length=32, description="`key` or `key:value`; all must match."),
    ] = None,
    q: Annotated[Filter, Query(description="Part of the name.")] = None,
    archived: Annotated[
        Archived | None, Query(description="`false` when absent; of one job: `any`.")
    ] = None,
    sort: Annotated[
        str,
        Query(
            min_length=1,
            max_length=200,
            pattern=r"^[^\x00]+$",
            description="Any field of `/v1/runs/fields`, `-` in front for the largest first: "
            "`-created_at`, `test_loss.best`, `-optimizer.lr`, `seconds`, `tags.team`. Runs "
            "without a value come last.",
        ),
    ] = "-created_at",
    limit: Limit = 50,
    cursor: Cursor = None,
    format: Annotated[
        Literal["json", "csv"],
        Query(description="`csv`: all that match, a column a field, from `cursor` on."),
    ] = "json",
    columns: Annotated[
        list[Annotated[str, Query(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]] | None,
        Query(
            max_length=200,
            description="Of the CSV, by field: repeated, or with commas; all when absent.",
        ),
    ] = None,
) -> Any:
    """List runs with their hyperparameters, metrics, seconds and tags; the newest first
    unless told otherwise.
    """
    shown: Archived = archived or ("any" if job_id else "false")
    statement = repository.search(
        job_id=job_id,
        status=status or (),
        optimizer=optimizer,
        model=model,
        dataset=dataset,
        q=q,
        archived=archived_only(shown),
        tags=[(key, value if colon else None) for key, colon, value in map(_split, tag or ())],
    )
    if project is not None:
        statement = statement.where(search.project_condition(session, [project], "project"))
    if filter is not None:
        statement = statement.where(search.condition(session, filter))
    if format == "csv":
        pieces = run_table.csv_pieces(database, session, statement, sort, cursor, columns)
        headers = {"Content-Disposition": downloads.attachment("runs.csv")}
        return StreamingResponse(pieces, headers=headers, media_type="text/csv; charset=utf-8")
    ids, following = search.page(session, statement, sort, limit, cursor)
    runs = repository.get_many(session, ids)
    return Page[RunItem](data=service.items(session, runs), next_cursor=following)


def _split(tag: str) -> tuple[str, str, str]:
    return tag.partition(":")


@router.get("/fields")
def list_run_fields(session: ReadSession) -> RunFields:
    """What the runs here can be filtered and sorted by: each hyperparameter, metric and tag."""
    return RunFields(data=service.list_fields(session))


@router.get("/{run_id}")
def get_run(run_id: RunId, session: ReadSession) -> RunView:
    """One run: what it was told, where it ran, and what came of it."""
    return service.view(session, service.find(session, run_id))


@router.post("/{run_id}/archive")
def archive_run(run_id: RunId, session: WriteSession) -> RunView:
    """Hide an ended run from lists. Nothing is deleted."""
    return service.view(session, service.archive(session, run_id, hidden=True))


@router.post("/{run_id}/unarchive")
def unarchive_run(run_id: RunId, session: WriteSession) -> RunView:
    """Show an archived run in lists again."""
    return service.view(session, service.archive(session, run_id, hidden=False))


@router.get(
    "/{run_id}/curves",
    response_model=Curves,
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                curve_parquet.PARQUET: {"schema": _BINARY},
            }
        },
        304: {"description": "The client has this already (If-None-Match)."},
    },
)
def get_curves(
    run_id: RunId,
    request: Request,
    database: CurrentDatabase,
    metric: Annotated[
        list[Metric] | None, Query(max_length=32, description="All when absent.")
    ] = None,
    x: Axis = "samples",
    max_points: Annotated[
        int | None,
        Query(ge=MIN_POINTS, le=1_000_000, description=f"Of each metric. {DESCRIPTION}"),
    ] = None,
    min_step: Annotated[int | None, Query(description="Only from this step on.", **_STEP)] = None,
    max_step: Annotated[int | None, Query(description="Only to this step.", **_STEP)] = None,
    min_x: Annotated[
        float | None, Query(allow_inf_nan=False, description="Only from this place of `x` on.")
    ] = None,
    max_x: Annotated[
        float | None, Query(allow_inf_nan=False, description="Only to this place of `x`.")
    ] = None,
    format: Literal["json", "csv", "parquet"] = "json",
) -> Any:
    """Curves of one run; CSV and Parquet hold all the axes, one row a point.

    `wall_seconds` and `cpu_seconds` count training only: evaluation, checkpoints, compiling and
    pauses are not in them. `cpu_seconds` are those of all threads, and not what a GPU computes.
    Points of runs from before they were counted have none: by `x=cpu_seconds` such points are
    absent, in files the cell is empty.
    """
    steps = (min_step, max_step)
    places = (min_x, max_x)
    with database.read() as session:
        metrics = service.metrics(session, run_id, metric)
        version = chunks.version(session, run_id)
    etag = downloads.weak_etag(version, x, max_points, steps, places, format, *metrics)
    if downloads.matches(request.headers.get("if-none-match"), etag):
        return Response(status_code=304, headers={"ETag": etag, "Cache-Control": _CACHE})
    curves: dict[str, Iterable[Series]] = {}
    headers = {"ETag": etag, "Cache-Control": _CACHE}
    axis = x if format == "json" else None
    if places != (None, None):
        with database.read() as session:
            steps = reading.steps_within(session, run_id, metrics, x, places, steps)
    if max_points is None:
        for name in metrics:
            pieces = reading.stream(database.read, run_id, name, steps)
            curves[name] = pieces if axis is None else (one.on(axis) for one in pieces)
    else:
        with database.read() as session:
            found = reading.read(session, run_id, metrics, max_points, steps, axis)
        if any(one.downsampled for one in found) and format != "json":
            headers["Downsampled"] = METHOD
        curves = {name: [one for one in found if one.metric == name] for name in metrics}
    if format == "json":
        body = curve_files.json_pieces(run_id, x, curves)
        return StreamingResponse(body, headers=headers, media_type="application/json")
    write, kind = _FILES[format]
    headers["Content-Disposition"] = downloads.attachment(f"{run_id}.{format}")
    pieces_of_file = write(chain.from_iterable(curves.values()))
    return StreamingResponse(pieces_of_file, headers=headers, media_type=kind)


@router.get("/{run_id}/artifacts")
def list_artifacts(run_id: RunId, session: ReadSession) -> ArtifactList:
    """The files a run left: model, configuration, curves, checkpoints."""
    return ArtifactList(data=service.artifacts(session, service.find(session, run_id)))


@router.get(
    "/{run_id}/artifacts/{name:path}",
    response_class=Response,
    responses={
        200: {"content": {"application/octet-stream": {"schema": _BINARY}}},
        206: {"description": "The part that Range asked for."},
        304: {"description": "The client has this already (If-None-Match)."},
    },
)
def get_artifact(
    run_id: RunId,
    name: ArtifactName,
    request: Request,
    database: CurrentDatabase,
    storage: CurrentStorage,
) -> Response:
    """Download one file. The ETag is its SHA-256; a single byte range can be asked for.

    Files of a run's curves are made when they are first asked for.
    """
    artifact = service.find_artifact(database, storage, run_id, name)
    return downloads.send_range(
        request,
        partial(storage.read, artifact.storage_key),
        size=artifact.size,
        sha256=artifact.sha256,
        name=artifact.name,
        content_type=artifact.content_type,
    )


router.add_api_route(
    "/{run_id}/artifacts/{name:path}", get_artifact, methods=["HEAD"], include_in_schema=False
)
