"""Put the trajectories of a job together: means over seeds, one table, one figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from sqlalchemy.orm import Session

from mlhf.ablation import report as ablation_report
from mlhf.ablation.config import SOLVER_VARIANTS
from mlhf.ablation.report import Trajectory
from mlhf.ablation.statistics import mean
from mlhf.core.metrics import json_number
from mlhf_service.ablations.schemas import Ablation, AblationRow, Spread
from mlhf_service.jobs import service as jobs
from mlhf_service.jobs.kinds.ablation import Ablation as AblationKind
from mlhf_service.jobs.models import Job
from mlhf_service.kit.problems import Conflict, Invalid
from mlhf_service.runs import trajectory_files
from mlhf_service.runs.curve_files import CSV, PNG


@dataclass(frozen=True)
class Measured:
    """What there is of a job's ablation: trajectories by task, in the job's order."""

    job_id: str
    name: str
    runs: int
    tasks: Mapping[str, Sequence[Trajectory]]


def measured(session: Session, job_id: str) -> Measured:
    """Gather the trajectories of a job that have ended."""
    job = _find(session, job_id)
    tasks: dict[str, list[Trajectory]] = {}
    for run in job.runs:
        if trajectory_files.has_files(run):
            found = trajectory_files.trajectory_of(session, run)
            tasks.setdefault(run.config["task"], []).append(found)
    return Measured(job.id, job.name, len(job.runs), tasks)


def table(of: Measured) -> Ablation:
    """The table as numbers."""
    return Ablation(
        job_id=of.job_id,
        runs=of.runs,
        done=sum(map(len, of.tasks.values())),
        rows=[
            AblationRow(
                task=task,
                damping=form.matrix,
                form=form.name,
                seeds=len(seeds),
                steps=max(seed.steps for seed in seeds),
                l_p=_spread([seed.l_p[form.name] for seed in seeds]),
                part=_spread([seed.part[form.name] for seed in seeds]),
                residual=_spread([seed.residual[form.name] for seed in seeds]),
            )
            for task, seeds in of.tasks.items()
            for form in SOLVER_VARIANTS
        ],
    )


def render(of: Measured, format: str) -> tuple[str, bytes]:
    """The table or the figure as a file's content type and content.

    Raises Conflict while there is nothing to show.
    """
    if not of.tasks:
        raise Conflict("No run of this job has ended with something measured yet.")
    if format == "png":
        panels = [
            row for task, seeds in of.tasks.items() for row in ablation_report.panels(task, seeds)
        ]
        return PNG, trajectory_files.png(panels)
    rows = [row for task, seeds in of.tasks.items() for row in ablation_report.rows(task, seeds)]
    if format == "csv":
        return CSV, trajectory_files.csv(rows)
    return trajectory_files.MARKDOWN, trajectory_files.markdown(of.name, rows)


def _find(session: Session, job_id: str) -> Job:
    job = jobs.find(session, job_id)
    if job.kind != AblationKind.name:
        message = f"This job is of kind {job.kind}; only an {AblationKind.name} has such a table."
        raise Invalid.at("job", message)
    return job


def _spread(values: Sequence[float]) -> Spread:
    middle = mean(values)
    lost = middle != middle  # lowest and highest of a NaN are anything
    low, high = (middle, middle) if lost else (min(values), max(values))
    return Spread(mean=json_number(middle), lowest=json_number(low), highest=json_number(high))
