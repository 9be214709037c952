"""The files stored with a trajectory that has ended: its table, its figure, and its numbers."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from mlhf.ablation import report as ablation_report
from mlhf.ablation import tables
from mlhf.ablation.config import MEASURES, SOLVER_VARIANTS
from mlhf.ablation.report import Trajectory
from mlhf.ablation.statistics import Row
from mlhf.core.events import encode
from mlhf_service.kit.panels import Panel, panels_png
from mlhf_service.runs import repository
from mlhf_service.runs.curve_files import CSV, PNG
from mlhf_service.runs.models import Run

JSON = "application/json"
MARKDOWN = "text/markdown; charset=utf-8"
NUMBERS = "ablation.json"  # what a job's table is made of


def render_all(session: Session, run: Run, diverged: bool) -> dict[str, tuple[str, bytes]]:
    """The files of one trajectory: name → (content type, content)."""
    trajectory = _trajectory(session, run, diverged)
    task = run.config["task"]
    rows = ablation_report.rows(task, [trajectory])
    panels = ablation_report.panels(task, [trajectory])
    return {
        NUMBERS: (JSON, encode(vars(trajectory))),
        "ablation.csv": (CSV, csv(rows)),
        "ablation.md": (MARKDOWN, markdown(run.name, rows)),
        "ablation.png": (PNG, png(panels)),
    }


def csv(rows: Sequence[Row]) -> bytes:
    return tables.csv_text(rows).encode()


def markdown(title: str, rows: Sequence[Row]) -> bytes:
    return tables.markdown_text(title, rows, ablation_report.NOTE).encode()


def png(panels: Sequence[Sequence[Panel]]) -> bytes:
    return panels_png(panels)


def _trajectory(session: Session, run: Run, diverged: bool) -> Trajectory:
    names = {form.metric(m): form.stat(m) for form in SOLVER_VARIANTS for m in MEASURES}
    curves = repository.curves(session, run.id, list(names))
    values = {names[one.metric]: one.value.tolist() for one in curves}
    samples = curves[0].samples.tolist() if curves else []
    return Trajectory.of(samples, values, diverged)
