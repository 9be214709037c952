"""Queries on runs, their points and their artifacts."""

import re
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import Session

from mlhf.core.metrics import higher_is_better
from mlhf_service.runs.curves import Series
from mlhf_service.runs.models import Artifact, Point, Run

_RUN_ID = re.compile(r"run_[0-9a-z]{1,36}")
_COLUMNS = (
    Point.step,
    Point.samples,
    Point.epoch,
    Point.wall_seconds,
    Point.cpu_seconds,
    Point.value,
    Point.nonfinite,
)
_FINITE = Point.nonfinite.is_(None)


def get(session: Session, run_id: str) -> Run | None:
    return session.get(Run, run_id) if _RUN_ID.fullmatch(run_id) else None


def get_many(session: Session, run_ids: Sequence[str]) -> list[Run]:
    """Those of the runs that there are, in the order asked for."""
    known = [run_id for run_id in run_ids if _RUN_ID.fullmatch(run_id)]
    found = {run.id: run for run in session.scalars(select(Run).where(Run.id.in_(known)))}
    return [found[run_id] for run_id in known if run_id in found]


def of_job(session: Session, job_id: str) -> list[Run]:
    """The runs of a job, in its order."""
    return list(session.scalars(select(Run).where(Run.job_id == job_id).order_by(Run.position)))


def search(
    *,
    job_id: str | None = None,
    status: Iterable[str] = (),
    optimizer: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    q: str | None = None,
) -> Select[Any]:
    """Select the runs that meet every condition given."""
    statement = select(Run)
    equal = (
        (Run.job_id, job_id),
        (Run.optimizer, optimizer),
        (Run.model, model),
        (Run.dataset, dataset),
    )
    for column, wanted in equal:
        if wanted is not None:
            statement = statement.where(column == wanted)
    if statuses := list(status):
        statement = statement.where(Run.status.in_(statuses))
    if q is not None:
        statement = statement.where(Run.name.icontains(q, autoescape=True))
    return statement


def curves(session: Session, run_id: str, metrics: Sequence[str] | None = None) -> list[Series]:
    """Whole curves of a run, by metric name; only ``metrics`` where given."""
    statement = select(Point.metric, *_COLUMNS).where(Point.run_id == run_id)
    if metrics is not None:
        statement = statement.where(Point.metric.in_(metrics))
    rows = session.execute(statement.order_by(Point.metric, Point.step)).all()
    return [
        Series.of(run_id, metric, [row[1:] for row in group])
        for metric, group in groupby(rows, key=lambda row: row[0])
    ]


def curves_of(
    session: Session, run_ids: Sequence[str], metrics: Sequence[str]
) -> dict[str, dict[str, Series]]:
    """Some metrics of several runs: run id → metric → curve, where there is one."""
    statement = select(Point.run_id, Point.metric, *_COLUMNS)
    statement = statement.where(Point.run_id.in_(run_ids), Point.metric.in_(metrics))
    rows = session.execute(statement.order_by(Point.run_id, Point.metric, Point.step)).all()
    found: dict[str, dict[str, Series]] = {run_id: {} for run_id in run_ids}
    for (run_id, metric), group in groupby(rows, key=lambda row: (row[0], row[1])):
        found[run_id][metric] = Series.of(run_id, metric, [row[2:] for row in group])
    return found


def metrics_of(session: Session, run_id: str) -> list[str]:
    """The names of what was measured."""
    statement = select(Point.metric).where(Point.run_id == run_id).distinct()
    return list(session.scalars(statement.order_by(Point.metric)))


def first_reaching(session: Session, run_id: str, metric: str, target: float) -> Point | None:
    """The first point at or beyond the target."""
    beyond = Point.value >= target if higher_is_better(metric) else Point.value <= target
    return session.scalar(
        select(Point)
        .where(Point.run_id == run_id, Point.metric == metric, _FINITE, beyond)
        .order_by(Point.step)
        .limit(1)
    )


def artifacts(session: Session, run_id: str) -> list[Artifact]:
    statement = select(Artifact).where(Artifact.run_id == run_id)
    return list(session.scalars(statement.order_by(Artifact.kind, Artifact.name)))


def artifact(session: Session, run_id: str, name: str) -> Artifact | None:
    if not _RUN_ID.fullmatch(run_id) or "\0" in name:
        return None
    return session.get(Artifact, (run_id, name))
