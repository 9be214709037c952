"""The pages: rendered here from the same services as the API, kept live by small scripts."""

import math
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import RedirectResponse
from markupsafe import Markup
from starlette.staticfiles import StaticFiles

from mlhf.data.formats import UploadFormat
from mlhf_service.api.dependencies import CurrentSettings, ReadContext, ReadSession
from mlhf_service.catalogue import service as catalogue
from mlhf_service.comparisons import answers
from mlhf_service.comparisons import service as comparisons
from mlhf_service.comparisons.legend import seeds
from mlhf_service.comparisons.schemas import ComparedMetric
from mlhf_service.datasets import service as datasets
from mlhf_service.jobs import repository as job_rows
from mlhf_service.jobs import service as jobs
from mlhf_service.jobs import waiting
from mlhf_service.jobs.kinds.registry import KINDS
from mlhf_service.jobs.models import Job
from mlhf_service.kit.drawing import AXIS_LABELS
from mlhf_service.kit.pagination import Cursor, Order, page_of_ids
from mlhf_service.kit.problems import BadRequest
from mlhf_service.runs import chunks
from mlhf_service.runs import service as runs
from mlhf_service.runs.metrics import METRICS, Axis, label
from mlhf_service.runs.status import ACTIVE, STATUSES, Status
from mlhf_service.web import views
from mlhf_service.web.best import best_groups
from mlhf_service.web.charts import charts, most_points
from mlhf_service.web.formats import query
from mlhf_service.web.rendering import PageRoute, page, part
from mlhf_service.workers import repository as workers

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_JOBS_A_PAGE, _RUNS_A_JOB, _DATASETS_A_PAGE = 20, 12, 100
_LOG_LINES, _LOG_EVENTS = 300, 5000
_Text = Annotated[str, Query(max_length=200, pattern=r"^[^\x00]*$")]
_Id = Annotated[str, Query(min_length=1, max_length=40, pattern=r"^[^\x00]+$")]


class _Static(StaticFiles):
    """Browsers ask each time whether a file has changed: a new release never runs old scripts."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "no-cache"
        return response


def static_files() -> StaticFiles:
    """Style sheets, scripts and the vendored chart library."""
    return _Static(directory=Path(__file__).parent / "static")


@router.get("/")
def list_page(
    request: Request,
    session: ReadSession,
    settings: CurrentSettings,
    status: Status | Literal[""] = "",
    optimizer: _Text = "",
    q: _Text = "",
    archived: Literal["", "true"] = "",
    cursor: Cursor = None,
) -> Response:
    """Jobs and their runs, the newest first."""
    chosen = {"status": status, "optimizer": optimizer, "q": q, "archived": archived}
    statement = job_rows.search(
        status=[status] if status else (),
        optimizer=optimizer or None,
        q=q or None,
        archived=bool(archived),
    )
    order = Order(Job.id, Job.id, True)
    ids, following = page_of_ids(session, statement, order, _JOBS_A_PAGE, cursor)
    rows = views.job_rows(session, ids, optimizer or None, _RUNS_A_JOB)
    return page(
        request,
        "list.html",
        rows=rows,
        older=query(**chosen, cursor=following) if following else None,
        newest=query(**chosen) if cursor else None,
        chosen=chosen,
        filtered=any(chosen.values()),
        statuses=STATUSES,
        optimizers=[entry.name for entry in catalogue.entries("optimizer")],
        most=comparisons.MOST_RUNS,
        first_job=views.FIRST_JOB,
        curl=views.curl(str(request.base_url), views.FIRST_JOB),
        active=any(row.job.status in ACTIVE for row in rows),
        no_worker=any(row.job.status == "queued" for row in rows)
        and not workers.alive(session, settings.lease_seconds),
    )


@router.get("/docs")
def docs_page(request: Request) -> Response:
    """The API's reference."""
    return page(request, "docs.html")


@router.get("/jobs")
def to_list() -> Response:
    """Jobs are on the first page."""
    return RedirectResponse("/")


@router.get("/jobs/{job_id}")
def job_page(
    request: Request, session: ReadSession, settings: CurrentSettings, job_id: str
) -> Response:
    """One job: its progress, its runs, its log."""
    job = jobs.find(session, job_id)
    row = views.job_row(session, job)
    counts = row.job.runs
    waits = waiting.reason(session, settings, job, counts.queued, counts.running)
    since = max(0, job.event_seq - _LOG_EVENTS)
    events = job_rows.events_after(session, job_id, since, _LOG_EVENTS, "log")
    return page(
        request,
        "job.html",
        job=row.job,
        waits=waits,
        part=KINDS[job.kind].page_part if job.kind in KINDS else None,
        runs=row.runs,
        actions=views.actions(row.job),
        log=views.log_entries(events[-_LOG_LINES:], job.runs),
        places={run.id: f"#{run.position}" for run in job.runs},
        last_event=job.event_seq,
        most=comparisons.MOST_RUNS,
        curl=views.curl(str(request.base_url), row.job.spec),
        active=row.job.status in ACTIVE,
    )


@router.get("/runs/{run_id}")
def run_page(request: Request, session: ReadSession, run_id: str) -> Response:
    """One run: its curve, its configuration, its environment and its files."""
    row, heads = runs.find(session, run_id), chunks.heads(session, run_id)
    run, job = runs.view(session, row, heads), jobs.find(session, row.job_id)
    return page(
        request,
        "run.html",
        run=run,
        job=job,
        artifacts=runs.artifacts(session, row),
        log=views.run_log(session, run_id, job, _LOG_EVENTS),
        evaluations=views.evaluations(session, run_id, heads),
        labels={name: label(name) for name in METRICS},
        axes=AXIS_LABELS,
        active=run.status in ACTIVE,
    )


@router.get("/datasets")
def datasets_page(request: Request, context: ReadContext, cursor: Cursor = None) -> Response:
    """Data sets, built in and uploaded, and a form to upload one."""
    listed = datasets.page(context, _DATASETS_A_PAGE, cursor)
    return page(
        request,
        "datasets.html",
        datasets=listed.data,
        older=query(cursor=listed.next_cursor) if listed.next_cursor else None,
        formats=get_args(UploadFormat),
    )


@router.get("/datasets/{dataset_id}")
def dataset_page(request: Request, context: ReadContext, dataset_id: str) -> Response:
    """One data set: what was understood of its files."""
    found = datasets.find(context, dataset_id)
    return page(request, "dataset.html", dataset=found, called=datasets.called(context, found))


@router.get("/compare")
def compare_page(
    request: Request,
    session: ReadSession,
    run: Annotated[list[_Id] | None, Query()] = None,
    job: _Id | None = None,
    metric: ComparedMetric | Literal[""] = "",
    target: _Text = "",
    x: Axis = "wall_seconds",
) -> Response:
    """Runs side by side."""
    chosen = comparisons.runs_to_compare(session, run or [], job)
    wanted = _number(target)

    def make() -> bytes:
        compared = comparisons.compare(
            session, chosen, metric or None, wanted, x, most_points(len(chosen))
        )
        comparison = compared.comparison
        return part(
            "compared.html",
            comparison=comparison,
            charts=charts(compared, x),
            x=x,
            axes=AXIS_LABELS,
            seeds=seeds,
            by_id={one.run_id: one for one in comparison.runs},
            best=best_groups(comparison),
            run=run or [],
            job=job,
            metrics=comparisons.METRICS,
            address=query(run=run, job=job, metric=metric, target=wanted),
            drawn=query(x=None if x == "wall_seconds" else x),
            active=any(one.status in ACTIVE for one in chosen),
        ).encode()

    key = answers.fingerprint(session, chosen, "page", run, job, metric, wanted, x)
    compared = Markup(answers.kept(key, make).decode())  # noqa: S704 - a template made it
    return page(request, "compare.html", compared=compared, count=len(chosen))


def _number(text: str) -> float | None:
    """The target as it was typed; none when the field was left empty."""
    if not text.strip():
        return None
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise BadRequest("The target must be a number, such as 0.1.")
    return value
