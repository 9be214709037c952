"""Queries on runs and their artifacts."""

import re
from collections.abc import Iterable, Sequence
from statistics import median
from typing import Any

from sqlalchemy import Select, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlhf.data.specs import DATASETS
from mlhf_service.database import now
from mlhf_service.kit.among import among
from mlhf_service.kit.search import holds
from mlhf_service.runs.fields import has_value
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.runs.values import TAGS, RunValue
from mlhf_service.storage.protocol import Stored

_PACED = 5
_RUN_ID = re.compile(r"run_[0-9a-z]{1,36}")


def get(session: Session, run_id: str) -> Run | None:
    return session.get(Run, run_id) if _RUN_ID.fullmatch(run_id) else None


def get_many(session: Session, run_ids: Sequence[str]) -> list[Run]:
    """Those of the runs that there are, in the order asked for."""
    known = [run_id for run_id in run_ids if _RUN_ID.fullmatch(run_id)]
    rows = session.scalars(select(Run).where(among(session, Run.id, known)))
    found = {run.id: run for run in rows}
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
    archived: bool | None = None,
    tags: Iterable[tuple[str, str | None]] = (),
) -> Select[Any]:
    """Select the runs that meet every condition given."""
    statement = select(Run)
    if archived is not None:
        hidden = Run.archived_at.is_not(None) if archived else Run.archived_at.is_(None)
        statement = statement.where(hidden)
    equal = (
        (Run.job_id, job_id),
        (Run.optimizer, optimizer),
        (Run.model, model),
        (dataset_column(dataset), dataset),
    )
    for column, wanted in equal:
        if wanted is not None:
            statement = statement.where(column == wanted)
    if statuses := list(status):
        statement = statement.where(Run.status.in_(statuses))
    for key, value in tags:
        same = () if value is None else (RunValue.text == value,)
        statement = statement.where(has_value(f"{TAGS}{key}", *same))
    if q is not None:
        statement = statement.where(holds(Run.name, q))
    return statement


def dataset_column(dataset: str | None) -> InstrumentedAttribute[Any]:
    """The column in which a data set is named so: of uploads both the id and the name."""
    is_id = dataset is None or dataset in DATASETS or dataset.startswith("ds_")
    return Run.dataset if is_id else Run.dataset_name


def pace(session: Session, optimizer: str, model: str, dataset: str) -> float | None:
    """Seconds of training a step: the median of the last runs of this kind that succeeded."""
    alike = (Run.optimizer == optimizer, Run.model == model, Run.dataset == dataset)
    statement = (
        select(Run.totals)
        .where(*alike, Run.status == "succeeded", Run.totals.is_not(None))
        .order_by(Run.id.desc())
        .limit(_PACED)
    )
    found = [
        totals["wall_seconds"] / totals["steps"]
        for totals in session.scalars(statement)
        if totals and totals.get("steps") and totals.get("wall_seconds")
    ]
    return median(found) if found else None


def artifacts(session: Session, run_id: str) -> list[Artifact]:
    statement = select(Artifact).where(Artifact.run_id == run_id)
    return list(session.scalars(statement.order_by(Artifact.kind, Artifact.name)))


def artifact(session: Session, run_id: str, name: str) -> Artifact | None:
    if not _RUN_ID.fullmatch(run_id) or "\0" in name:
        return None
    return session.get(Artifact, (run_id, name))


def record_file(
    session: Session,
    run_id: str,
    name: str,
    kind: str,
    stored: Stored,
    content_type: str,
    step: int | None = None,
) -> Artifact:
    """Write down a file of a run that is in the store, in place of any of that name."""
    return session.merge(
        Artifact(
            run_id=run_id,
            name=name,
            kind=kind,
            step=step,
            content_type=content_type,
            size=stored.size,
            sha256=stored.sha256,
            storage_key=stored.key,
            created_at=now(),
        )
    )
