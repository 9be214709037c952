"""HTTP for reports."""

from typing import Annotated

from fastapi import APIRouter, Query, Response

from mlhf_service.api.dependencies import ReadSession
from mlhf_service.comparisons import service as comparisons
from mlhf_service.comparisons.schemas import ComparedMetric
from mlhf_service.jobs import service as jobs
from mlhf_service.kit import downloads
from mlhf_service.reports import html
from mlhf_service.runs import outcomes, reading
from mlhf_service.runs import service as runs

router = APIRouter(prefix="/reports", tags=["reports"])

_Id = Annotated[str, Query(min_length=1, max_length=40, pattern=r"^[^\x00]+$")]
_HTML = "text/html; charset=utf-8"
_DRAWN_POINTS = 2000


@router.get("", response_class=Response, responses={200: {"content": {"text/html": {}}}})
def get_report(
    session: ReadSession,
    run: Annotated[
        list[_Id] | None, Query(max_length=comparisons.MOST_RUNS, description="One run, or many.")
    ] = None,
    job: Annotated[_Id | None, Query(description="All runs of this job.")] = None,
    metric: Annotated[ComparedMetric | None, Query(description="Of a comparison.")] = None,
    target: Annotated[
        float | None, Query(allow_inf_nan=False, description="Of a comparison.")
    ] = None,
) -> Response:
    """One run, or a comparison of several, as an HTML file that needs no network."""
    if run and len(run) == 1 and job is None:
        name, content = _of_run(session, run[0])
    else:
        chosen = comparisons.runs_to_compare(session, run or [], job)
        title = jobs.find(session, job).name if job else f"{len(chosen)} runs compared"
        compared = comparisons.compare(session, chosen, metric, target, None)
        session.close()  # drawing takes long, and needs no connection

        from mlhf_service.comparisons.figures import comparison_figure

        picture = comparison_figure(compared, None, "png")
        name = f"{job or 'comparison'}.html"
        content = html.comparison_report(title, compared.comparison, [picture])
    disposition = {"Content-Disposition": downloads.attachment(name)}
    return Response(content, media_type=_HTML, headers=disposition)


def _of_run(session: ReadSession, run_id: str) -> tuple[str, bytes]:
    from mlhf_service.runs.figures import run_figure

    found = runs.find(session, run_id)
    view = runs.view(session, found)
    series = reading.read(session, run_id, limit=_DRAWN_POINTS)
    at = outcomes.diverged_at(found)
    session.close()
    return f"{run_id}.html", html.run_report(view, run_figure(view.name, series, at))
