"""Queries and locks on jobs and their runs."""

import re
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from sqlalchemy import (
    ARRAY,
    JSON,
    BigInteger,
    ColumnElement,
    ScalarSelect,
    Select,
    String,
    Text,
    and_,
    bindparam,
    cast,
    exists,
    func,
    literal_column,
    or_,
    select,
)
from sqlalchemy.orm import Session, defer, selectinload

from mlhf_service.jobs import journal
from mlhf_service.jobs.models import Job, JobEvent, JobTag
from mlhf_service.kit.among import among
from mlhf_service.kit.search import holds
from mlhf_service.runs.models import Run
from mlhf_service.runs.repository import dataset_column
from mlhf_service.runs.status import TERMINAL, WAITING
from mlhf_service.webhooks.events import has_any, has_none

_JOB_ID = re.compile(r"job_[0-9a-z]{1,36}")
# What lists show of a job's own row, and what that is computed from.
LISTED = (
    *("id", "kind", "name", "status", "desired", "error", "priority", "start_at"),
    *("max_parallel_runs", "spec", "tally", "retried_from", "cloned_from", "created_at"),
    *("started_at", "finished_at", "running_since", "worked_seconds", "archived_at"),
    *("project_id", "notes"),
)
_COLUMNS = select(*(getattr(Job, name) for name in LISTED))


def get(session: Session, job_id: str) -> Job | None:
    if not _JOB_ID.fullmatch(job_id):
        return None
    return session.scalar(select(Job).options(selectinload(Job.tags)).where(Job.id == job_id))


_LOCKED = (
    select(Job, has_any(Job.tenant))
    .where(Job.id == bindparam("of_job"))
    .with_for_update()
    .options(defer(Job.spec))
    .execution_options(populate_existing=True)
)


def lock(session: Session, job_id: str) -> Job | None:
    """The job, locked until the transaction ends. Always taken before its runs are changed,
    so that no two transactions wait for each other."""
    found = session.execute(_LOCKED, {"of_job": job_id}).first()
    return None if found is None else locked(session, *found)


def locked(session: Session, job: Job, has_webhooks: bool) -> Job:
    """Say that a query has locked this job, and whether its tenant has webhooks."""
    journal.is_locked(session, job)
    if not has_webhooks:
        has_none(session, job.tenant)
    return job


def runs_of(session: Session, job_id: str) -> list[Run]:
    """The job's runs as they are now; take the job's lock first when they will be changed."""
    statement = select(Run).where(Run.job_id == job_id).order_by(Run.position)
    return list(session.scalars(statement.execution_options(populate_existing=True)))


def listed(session: Session, job_ids: Sequence[str], most_runs: int) -> list[dict[str, Any]]:
    """What lists show of jobs, in the order of the ids, by name; all in one query.

    Besides LISTED: ``tags``, and as ``run_ids`` the ids of the first runs.
    """
    statement = _COLUMNS.add_columns(_tags(session), _first_run_ids(session, most_runs))
    names = (*LISTED, "tags", "run_ids")
    rows = session.execute(statement.where(among(session, Job.id, job_ids)))
    found = {row[0]: dict(zip(names, row, strict=True)) for row in rows}
    return [found[job_id] for job_id in job_ids if job_id in found]


# What tells whether a job's row has changed. On PostgreSQL that is who wrote it last.
# ``event_seq`` too: it grows when a run is deleted. A specification never changes.
_VERSION: list[Any] = [
    cast(column, Text).label(name) if isinstance(column.type, JSON) else column
    for name in (*LISTED, "event_seq")
    if name not in ("spec", "id", "project_id")
    for column in [getattr(Job, name)]
]
_WRITTEN_BY: list[Any] = [cast(literal_column("jobs.xmin"), Text)]
# While none of a job's runs trains, its own row changes with each of theirs: by its events.
_RESTS = or_(and_(Job.status.in_(TERMINAL), Job.tally.is_not(None)), Job.status.in_(WAITING))
# Of one run it takes no longer to read it than to see whether it has changed.
_GOES_ON = and_(Job.status == "running", Job.kind != "train")
# Who wrote a row later has the larger number, so that a change of any run changes their sum.
_RUNS_WRITTEN_BY = select(
    Run.job_id, func.count(), func.sum(cast(cast(literal_column("runs.xmin"), Text), BigInteger))
).group_by(Run.job_id)
_TICK_SECONDS = 5.0  # the time that is left is told anew so often, though nothing has changed


def versions(
    session: Session, job_ids: Sequence[str]
) -> list[tuple[str, str | None, tuple[Any, ...]]]:
    """Of each of these jobs that has ended, or waits: its id, its project's, and all by which a
    change of what lists show of it and its runs can be seen, nothing of it parsed.

    On PostgreSQL of jobs of many runs that train, too.
    """
    postgresql = session.get_bind().dialect.name == "postgresql"
    seen = _WRITTEN_BY if postgresql else _VERSION
    told = or_(_RESTS, _GOES_ON) if postgresql else _RESTS
    own = select(Job.id, Job.project_id, Job.status == "running", *seen).where(told)
    rows = session.execute(own.where(among(session, Job.id, job_ids))).all()
    going = _versions_of_runs(session, [row[0] for row in rows if row[2]])
    # By key: ``json_object_agg`` has them in the order in which the rows come.
    gather = func.jsonb_object_agg if postgresql else func.json_group_object
    tags = select(JobTag.job_id, cast(gather(JobTag.key, JobTag.value, type_=JSON), Text))
    of_jobs = tags.where(among(session, JobTag.job_id, job_ids)).group_by(JobTag.job_id)
    tagged = {row[0]: row[1] for row in session.execute(of_jobs)}
    return [
        (id_, project, (*seen, tagged.get(id_), *going.get(id_, ())))
        for id_, project, _, *seen in rows
    ]


def _versions_of_runs(session: Session, job_ids: Sequence[str]) -> dict[str, tuple[Any, ...]]:
    """What changes with any run of each job, and with the time that it still takes."""
    if not job_ids:
        return {}
    rows = session.execute(_RUNS_WRITTEN_BY.where(among(session, Run.job_id, job_ids)))
    tick = int(time.time() / _TICK_SECONDS)
    return {job_id: (count, int(written), tick) for job_id, count, written in rows}


def _tags(session: Session) -> ScalarSelect[Any]:
    """A job's tags as an object; null where it has none."""
    postgresql = session.get_bind().dialect.name == "postgresql"
    gather = func.json_object_agg if postgresql else func.json_group_object
    of_job = select(JobTag).where(JobTag.job_id == Job.id).order_by(JobTag.key)
    tag = of_job.correlate(Job).subquery()
    return select(gather(tag.c.key, tag.c.value, type_=JSON)).scalar_subquery()


def run_ids(session: Session, job_id: str) -> list[str]:
    """The ids of all runs of a job, in its order."""
    return list(session.scalars(select(Run.id).where(Run.job_id == job_id).order_by(Run.position)))


def first_run_ids(session: Session, job_ids: Sequence[str], most: int) -> dict[str, list[str]]:
    """The ids of the first runs of each job."""
    of_jobs = select(Job.id, _first_run_ids(session, most))
    found = session.execute(of_jobs.where(among(session, Job.id, job_ids)))
    return {job_id: list(own or ()) for job_id, own in found}


def _first_run_ids(session: Session, most: int) -> ColumnElement[Any]:
    """The ids of a job's first runs; of a large job no more rows are read than these."""
    first = select(Run.id).where(Run.job_id == Job.id).order_by(Run.position).limit(most)
    if session.get_bind().dialect.name == "postgresql":
        return func.array(first.correlate(Job).scalar_subquery(), type_=ARRAY(String))
    of_job = first.correlate(Job).subquery()
    return select(func.json_group_array(of_job.c.id, type_=JSON)).scalar_subquery()


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
