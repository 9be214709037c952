"""HTTP for runs."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Request, Response

from mlhf_service.api.dependencies import CurrentStorage, ReadSession
from mlhf_service.kit import downloads
from mlhf_service.kit.pagination import (
    Cursor,
    Limit,
    Order,
    Page,
    paginate,
)
from mlhf_service.runs import curve_files, repository, service
from mlhf_service.runs.curves import Series
from mlhf_service.runs.downsample import DESCRIPTION, METHOD, MIN_POINTS
from mlhf_service.runs.metrics import Axis
from mlhf_service.runs.models import Run
from mlhf_service.runs.schemas import (
    ArtifactList,
    Curves,
    CurveSeries,
    RunItem,
    RunView,
)
from mlhf_service.runs.status import Status

router = APIRouter(prefix="/runs", tags=["runs"])

RunId = Annotated[str, Path(max_length=40, description="Id of a run.")]
ArtifactName = Annotated[str, Path(max_length=200, description="Name of a file of the run.")]
Filter = Annotated[str | None, Query(min_length=1, max_length=200, pattern=r"^[^\x00]+$")]
Metric = Annotated[str, Query(min_length=1, max_length=64, pattern=r"^[a-z0-9_]+$")]
_COLUMNS = {
    "created_at": Run.id,  # ids sort by time
    "name": Run.name,
    "status": Run.status,
    "optimizer": Run.optimizer,
    "model": Run.model,
    "dataset": Run.dataset,
}
Sort = Literal[
    "created_at",
    "-created_at",
    "name",
    "-name",
    "status",
    "-status",
    "optimizer",
    "-optimizer",
    "model",
    "-model",
    "dataset",
    "-dataset",
]
_BINARY = {"type": "string", "format": "binary"}


@router.get("")
def list_runs(
    session: ReadSession,
    job_id: Annotated[Filter, Query(description="Only the runs of this job.")] = None,
    status: Annotated[list[Status] | None, Query(description="Any of these.")] = None,
    optimizer: Filter = None,
    model: Filter = None,
    dataset: Filter = None,
    q: Annotated[Filter, Query(description="Part of the name.")] = None,
    sort: Sort = "-created_at",
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[RunItem]:
    """List runs, the newest first unless told otherwise."""
    statement = repository.search(
        job_id=job_id, status=status or (), optimizer=optimizer, model=model, dataset=dataset, q=q
    )
    order = Order(_COLUMNS[sort.lstrip("-")], Run.id, sort.startswith("-"))
    return paginate(session, statement, order, limit, cursor, service.item)


@router.get("/{run_id}")
def get_run(run_id: RunId, session: ReadSession) -> RunView:
    """One run: what it was told, where it ran, and what came of it."""
    return service.view(session, service.find(session, run_id))


@router.get(
    "/{run_id}/curves",
    response_model=Curves,
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                curve_files.PARQUET: {"schema": _BINARY},
            }
        },
        304: {"description": "The client has this already (If-None-Match)."},
    },
)
def get_curves(
    run_id: RunId,
    request: Request,
    session: ReadSession,
    metric: Annotated[
        list[Metric] | None, Query(max_length=32, description="All when absent.")
    ] = None,
    x: Axis = "samples",
    max_points: Annotated[
        int | None,
        Query(ge=MIN_POINTS, le=1_000_000, description=f"Of each metric. {DESCRIPTION}"),
    ] = None,
    format: Literal["json", "csv", "parquet"] = "json",
) -> Any:
    """Curves of one run; CSV and Parquet hold all the axes, one row a point.

    `wall_seconds` and `cpu_seconds` count training only: evaluation, checkpoints, compiling and
    pauses are not in them. `cpu_seconds` are those of all threads, and not what a GPU computes.
    Points of runs from before they were counted have none: by `x=cpu_seconds` such points are
    absent, in files the cell is empty.
    """
    series = service.curves(session, run_id, metric, max_points, x if format == "json" else None)
    if format == "json":
        body = _curves(run_id, x, series).model_dump_json().encode()
        return downloads.send_bytes(request.headers, body, "application/json")
    extra = {}
    if any(one.downsampled for one in series):
        extra["Downsampled"] = METHOD
    if format == "csv":
        content, kind = curve_files.to_csv(series), curve_files.CSV
    else:
        content, kind = curve_files.to_parquet(series), curve_files.PARQUET
    return downloads.send_bytes(request.headers, content, kind, f"{run_id}.{format}", extra)


def _curves(run_id: str, x: Axis, series: list[Series]) -> Curves:
    # Made by us from checked columns: validating a million points would only cost time.
    return Curves.model_construct(
        run_id=run_id,
        x=x,
        series=[
            CurveSeries.model_construct(
                metric=one.metric,
                points=one.pairs(x),
                total_points=one.total,
                downsampled=one.downsampled,
                unplaced=one.unplaced,
                method=METHOD if one.downsampled else None,
            )
            for one in series
        ],
    )


@router.get("/{run_id}/artifacts")
def list_artifacts(run_id: RunId, session: ReadSession) -> ArtifactList:
    """The files a run left: model, configuration, curves, checkpoints."""
    return ArtifactList(data=service.artifacts(session, run_id))


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
    session: ReadSession,
    storage: CurrentStorage,
) -> Response:
    """Download one file. The ETag is its SHA-256; a single byte range can be asked for."""
    artifact, path = service.find_artifact(session, storage, run_id, name)
    return downloads.send_file(
        request.headers,
        path,
        sha256=artifact.sha256,
        name=artifact.name,
        content_type=artifact.content_type,
    )


router.add_api_route(
    "/{run_id}/artifacts/{name:path}", get_artifact, methods=["HEAD"], include_in_schema=False
)
