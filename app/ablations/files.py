"""The files stored with a trajectory that has ended: its table, its figure, and its numbers."""

from collections.abc import Sequence

from sqlalchemy.orm import Session

from app.runs import repository
from app.runs.curve_files import CSV, PNG
from app.runs.models import Run
from engine.experiments import ablation_report, figures, tables
from engine.experiments.ablation_config import FORMS, MEASURES
from engine.experiments.ablation_report import Trajectory
from engine.experiments.figures import Panel
from engine.experiments.statistics import Row
from engine.training.events import encode

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
    return figures.panels_png(panels)


def _trajectory(session: Session, run: Run, diverged: bool) -> Trajectory:
    names = {form.metric(m): form.stat(m) for form in FORMS for m in MEASURES}
    curves = repository.curves(session, run.id, list(names))
    values = {names[one.metric]: one.value.tolist() for one in curves}
    samples = curves[0].samples.tolist() if curves else []
    return Trajectory.of(samples, values, diverged)
