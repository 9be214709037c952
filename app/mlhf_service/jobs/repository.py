"""Queries and locks on jobs and their runs."""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    ColumnElement,
    Row,
    Select,
    String,
    bindparam,
    exists,
    func,
    select,
)
from sqlalchemy.orm import Session, defer, selectinload

from mlhf_service.jobs.models import Job, JobEvent, JobTag
from mlhf_service.kit.among import among
from mlhf_service.kit.search import holds
from mlhf_service.runs.models import Run
from mlhf_service.runs.repository import dataset_column

_JOB_ID = re.compile(r"job_[0-9a-z]{1,36}")
_LISTED = (  # what views.items shows
    "id kind name status desired error priority start_at max_parallel_runs spec tally "
    "retried_from cloned_from created_at started_at finished_at running_since worked_seconds "
    "archived_at project_id notes"
)
_COLUMNS = select(*(getattr(Job, name) for name in _LISTED.split()))


def get(session: Session, job_id: str) -> Job | None:
    if not _JOB_ID.fullmatch(job_id):
        return None
    return session.scalar(select(Job).options(selectinload(Job.tags)).where(Job.id == job_id))


_LOCKED = (
    select(Job)
    .where(Job.id == bindparam("of_job"))
    .with_for_update()
    .options(defer(Job.spec))
    .execution_options(populate_existing=True)
)


def lock(session: Session, job_id: str) -> Job | None:
    """The job, locked until the transaction ends. Always taken before its runs are changed,
    so that no two transactions wait for each other."""
    return session.scalar(_LOCKED, {"of_job": job_id})


def runs_of(session: Session, job_id: str) -> list[Run]:
    """The job's runs as they are now; take the job's lock first when they will be changed."""
    statement = select(Run).where(Run.job_id == job_id).order_by(Run.position)
    return list(session.scalars(statement.execution_options(populate_existing=True)))


def rows(session: Session, job_ids: Sequence[str]) -> list[Row[Any]]:
    """What lists show of jobs, in the order of the ids."""
    found = {
        row.id: row for row in session.execute(_COLUMNS.where(among(session, Job.id, job_ids)))
    }
    return [found[job_id] for job_id in job_ids if job_id in found]


def tags(session: Session, job_ids: Sequence[str]) -> dict[str, dict[str, str]]:
    """The tags of jobs by id, of those that have any."""
    columns = select(JobTag.job_id, JobTag.key, JobTag.value)
    columns = columns.where(among(session, JobTag.job_id, job_ids))
    found: dict[str, dict[str, str]] = {}
    for job_id, key, value in session.execute(columns.order_by(JobTag.job_id, JobTag.key)):
        found.setdefault(job_id, {})[key] = value
    return found


def run_ids(session: Session, job_id: str) -> list[str]:
    """The ids of all runs of a job, in its order."""
    return list(session.scalars(select(Run.id).where(Run.job_id == job_id).order_by(Run.position)))


def first_run_ids(session: Session, job_ids: Sequence[str], most: int) -> dict[str, list[str]]:
    """The ids of the first runs of each job; of a large job no more rows are read than these."""
    first = select(Run.id).where(Run.job_id == Job.id).order_by(Run.position).limit(most)
    if session.get_bind().dialect.name == "postgresql":
        ids = func.array(first.correlate(Job).scalar_subquery(), type_=ARRAY(String))
    else:
        of_job = first.correlate(Job).subquery()
        gathered = func.json_group_array(of_job.c.id, type_=JSON)
        ids = select(gathered).select_from(of_job).scalar_subquery()  # type: ignore[assignment]
    found = session.execute(select(Job.id, ids).where(among(session, Job.id, job_ids)))
    return {job_id: list(own or ()) for job_id, own in found}


def first_runs(
    session: Session, job_ids: Sequence[str], most: int, optimizer: str | None = None
) -> dict[str, tuple[list[Run], int | None]]:
    """The first runs of each job; with ``optimizer``, only its, and how many there are."""
    if optimizer is None:
        ids = first_run_ids(session, job_ids, most)
        wanted = [run_id for own in ids.values() for run_id in own]
        named = session.scalars(select(Run).where(among(session, Run.id, wanted)))
        rows = {run.id: run for run in named}
        return {job_id: ([rows[one] for one in own], None) for job_id, own in ids.items()}
    place = func.row_number().over(partition_by=Run.job_id, order_by=Run.position).label("place")
    count = func.count().over(partition_by=Run.job_id).label("count")
    matching = select(Run.id, place, count).where(among(session, Run.job_id, job_ids))
    if optimizer is not None:
        matching = matching.where(Run.optimizer == optimizer)
    ranked = matching.subquery()
    statement = (
        select(Run, ranked.c.count)
        .join(ranked, Run.id == ranked.c.id)
        .where(ranked.c.place <= most)
        .order_by(Run.job_id, ranked.c.place)
    )
    found: dict[str, tuple[list[Run], int | None]] = {job_id: ([], 0) for job_id in job_ids}
    for run, matching_runs in session.execute(statement):
        found[run.job_id] = ([*found[run.job_id][0], run], matching_runs)
    return found


_BY_STATUS = (
    select(Run.status, func.count(), func.min(Run.available_at))
    .where(Run.job_id == bindparam("of_job"))
    .group_by(Run.status)
)


def status_counts(session: Session, job_id: str) -> tuple[Counter[str], float | None]:
    """How many runs are in each status, and from when the first of those that wait may start."""
    rows = session.execute(_BY_STATUS, {"of_job": job_id}).all()
    counts = Counter({status: count for status, count, _ in rows})
    return counts, next((at for status, _, at in rows if status == "queued"), None)


def failed_runs(session: Session, job_id: str) -> list[Run]:
    """The job's runs that failed, as they are now."""
    statement = select(Run).where(Run.job_id == job_id, Run.status == "failed")
    in_order = statement.order_by(Run.position).execution_options(populate_existing=True)
    return list(session.scalars(in_order))


def search(
    *,
    status: Iterable[str] = (),
    kind: str | None = None,
    tags: Iterable[tuple[str, str | None]] = (),
    optimizer: str | None = None,
    model: str | None = None,
    dataset: str | None = None,
    q: str | None = None,
    priority: int | None = None,
    archived: bool | None = None,
) -> Select[Job]:
    """Select the jobs that meet every condition given."""
    conditions: list[ColumnElement[bool]] = []
    if archived is not None:
        conditions.append(Job.archived_at.is_not(None) if archived else Job.archived_at.is_(None))
    if statuses := list(status):
        conditions.append(Job.status.in_(statuses))
    if kind:
        conditions.append(Job.kind == kind)
    for key, value in tags:
        tagged = select(JobTag.job_id).where(JobTag.key == key)
        if value is not None:
            tagged = tagged.where(JobTag.value == value)
        conditions.append(Job.id.in_(tagged))
    of_runs = (
        (Run.optimizer, optimizer),
        (Run.model, model),
        (dataset_column(dataset), dataset),
    )
    for column, wanted in of_runs:
        if wanted:
            conditions.append(exists().where(Run.job_id == Job.id, column == wanted))
    if priority is not None:
        conditions.append(Job.priority == priority)
    if q:
        conditions.append(holds(Job.name, q))
    return select(Job).where(*conditions)


def status_data(job: Job) -> dict[str, Any]:
    """What an event says of a job's status."""
    return {"status": job.status, "error": job.error}


def first_event(job: Job) -> JobEvent:
    """The event that a job is made with: its ``event_seq`` is 1 already."""
    return JobEvent(job_id=job.id, seq=1, type="status", data=status_data(job), at=job.created_at)


def events_after(
    session: Session, job_id: str, after: int, limit: int, type_: str | None = None
) -> list[JobEvent]:
    statement = select(JobEvent).where(JobEvent.job_id == job_id, JobEvent.seq > after)
    if type_ is not None:
        statement = statement.where(JobEvent.type == type_)
    return list(session.scalars(statement.order_by(JobEvent.seq).limit(limit)))
