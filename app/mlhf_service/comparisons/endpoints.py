"""HTTP for comparisons."""

from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response

from mlhf_service.api.dependencies import ReadSession
from mlhf_service.comparisons import answers, latex, service, tables
from mlhf_service.comparisons.schemas import ComparedMetric, Comparison
from mlhf_service.kit import downloads
from mlhf_service.runs import curve_files
from mlhf_service.runs.metrics import Axis

router = APIRouter(prefix="/comparisons", tags=["comparisons"])

_Id = Annotated[str, Query(min_length=1, max_length=40, pattern=r"^[^\x00]+$")]
SVG = "image/svg+xml"
LATEX = "application/x-latex"
Format = Literal["json", "csv", "png", "svg", "latex"]
_TYPES: dict[Format, str] = {
    "csv": curve_files.CSV,
    "latex": LATEX,
    "png": curve_files.PNG,
    "svg": SVG,
}


@router.get(
    "",
    response_model=Comparison,
    responses={
        200: {
            "content": {
                "text/csv": {"schema": {"type": "string"}},
                curve_files.PNG: {"schema": {"type": "string", "format": "binary"}},
                SVG: {"schema": {"type": "string"}},
                LATEX: {"schema": {"type": "string"}},
            }
        }
    },
)
def get_comparison(
    request: Request,
    session: ReadSession,
    run: Annotated[
        list[_Id] | None,
        Query(max_length=service.MOST_RUNS, description=f"Ids of 2 to {service.MOST_RUNS} runs."),
    ] = None,
    job: Annotated[_Id | None, Query(description="All runs of this job.")] = None,
    metric: Annotated[
        ComparedMetric | None,
        Query(description="Default: that of the runs' common target, else train_loss."),
    ] = None,
    target: Annotated[
        float | None,
        Query(allow_inf_nan=False, description="Default: the target all the runs were given."),
    ] = None,
    x: Annotated[
        Axis | None, Query(description="Of the picture; by samples and by seconds when absent.")
    ] = None,
    format: Format = "json",
) -> Any:
    """Compare runs: final and best values, and what it took each to reach the target.

    A target is reached at the first measurement at or below it (accuracies: at or above);
    nothing is interpolated. A run that has not ended and has not reached it is unfinished, not
    missed. Runs that differ only in their seed form a group, with mean, standard deviation and
    range over seeds; runs of the same seed are averaged first, and count as one.

    `cpu_seconds` are the CPU seconds of training, of all threads. Where the thread that trains
    had a processor for less than 80 % of its seconds, a warning says that the machine was shared.
    """
    runs = service.runs_to_compare(session, run or [], job)

    def make() -> bytes:
        compared = service.compare(session, runs, metric, target, x)
        session.close()  # drawing takes long, and needs no connection
        return _written(compared, x, format)

    key = answers.fingerprint(session, runs, format, metric, target, x)
    content = answers.kept(key, make)
    if format == "json":
        return Response(content, media_type="application/json")
    name = f"comparison.{'tex' if format == 'latex' else format}"
    return downloads.send_bytes(request.headers, content, _TYPES[format], name)


def _written(compared: service.Compared, x: Axis | None, form: Format) -> bytes:
    if form == "json":
        return compared.comparison.model_dump_json().encode()
    if form == "csv":
        return tables.to_csv(compared.comparison)
    if form == "latex":
        return latex.to_latex(compared.comparison)
    from mlhf_service.comparisons.figures import comparison_figure

    return comparison_figure(compared, x, form)
