"""The files of a trajectory that has ended: its table, its figure, and its numbers."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from mlhf.ablation import report as ablation_report
from mlhf.ablation import tables
from mlhf.ablation.config import MEASURES, SOLVER_VARIANTS
from mlhf.ablation.report import Trajectory
from mlhf.ablation.statistics import Row
from mlhf.core.events import encode
from mlhf_service.kit.panels import Panel, panels_png
from mlhf_service.runs import outcomes, reading
from mlhf_service.runs.curve_files import CSV, PNG
from mlhf_service.runs.models import Run

JSON = "application/json"
MARKDOWN = "text/markdown; charset=utf-8"

FILES = (
    ("ablation.json", JSON),  # what a job's table is made of
    ("ablation.csv", CSV),
    ("ablation.md", MARKDOWN),
    ("ablation.png", PNG),
)


def has_files(run: Run) -> bool:
    """Whether a run of an ablation has trained to its end, or to where it diverged."""
    return run.status == "succeeded" or outcomes.diverged(run)


def render(session: Session, run: Run, name: str) -> bytes:
    """One of the files of a trajectory."""
    trajectory = trajectory_of(session, run)
    task = run.config["task"]
    if name == "ablation.json":
        return encode(vars(trajectory))
    if name == "ablation.png":
        return png(ablation_report.panels(task, [trajectory]))
    rows = ablation_report.rows(task, [trajectory])
    return csv(rows) if name == "ablation.csv" else markdown(run.name, rows)


def csv(rows: Sequence[Row]) -> bytes:
    return tables.csv_text(rows).encode()


def markdown(title: str, rows: Sequence[Row]) -> bytes:
    return tables.markdown_text(title, rows, ablation_report.NOTE).encode()


def png(panels: Sequence[Sequence[Panel]]) -> bytes:
    return panels_png(panels)


def trajectory_of(session: Session, run: Run) -> Trajectory:
    """What a run of an ablation measured."""
    names = {form.metric(m): form.stat(m) for form in SOLVER_VARIANTS for m in MEASURES}
    curves = reading.read(session, run.id, list(names))
    values = {names[one.metric]: one.value.tolist() for one in curves}
    samples = curves[0].samples.tolist() if curves else []
    return Trajectory.of(samples, values, outcomes.diverged(run))
