"""A job's runs in numbers: how many are in each state, and how far they are together."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from sqlalchemy import (
    ColumnElement,
    Float,
    Result,
    Select,
    bindparam,
    case,
    cast,
    column,
    func,
    select,
    true,
)
from sqlalchemy.orm import Session

from mlhf_service.jobs.models import Job
from mlhf_service.kit.among import among
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import TERMINAL

_PROGRESS = ("step", "total_steps", "epoch", "samples", "fraction")


@dataclass
class Tally:
    """Sums over the runs of one job.

    Attributes:
        counts: Runs by status.
        attempts: The most often that one of them was started.
        total_steps: None where one of the runs does not know its own.
        fraction: How much is done, summed over the runs.
        spent: The same, but of a run that has ended nothing is left to do, however far it came.
    """

    counts: dict[str, int]
    attempts: int = 0
    step: int = 0
    total_steps: int | None = None
    epoch: float = 0.0
    samples: int = 0
    fraction: float = 0.0
    spent: float = 0.0

    @property
    def runs(self) -> int:
        return sum(self.counts.values())

    def stored(self) -> dict[str, Any]:
        """As JSON, to be kept with a job that has ended."""
        return asdict(self)


def of(session: Session, job: Job) -> Tally:
    return of_all(session, [(job.id, job.tally)])[job.id]


def of_all(
    session: Session, jobs: Iterable[tuple[str, Mapping[str, Any] | None]]
) -> dict[str, Tally]:
    """The tallies of jobs by id: of those that have ended as kept, of the others counted now.

    Args:
        jobs: The id of each, and what was kept with it.
    """
    stored = dict(jobs)
    kept = {job_id: Tally(**tally) for job_id, tally in stored.items() if tally is not None}
    return kept | count(session, [job_id for job_id in stored if job_id not in kept])


def count(session: Session, job_ids: Sequence[str]) -> dict[str, Tally]:
    """Count the runs of jobs, as they are in the database, by job id."""
    found = {job_id: Tally({}) for job_id in job_ids}
    known: dict[str, int] = dict.fromkeys(job_ids, 0)
    totals: dict[str, int] = dict.fromkeys(job_ids, 0)
    for row in _by_status(session, job_ids) if job_ids else ():
        tally = found[row.job_id]
        fraction = float(row.runs if row.status == "succeeded" else row.fraction or 0.0)
        tally.counts[row.status] = row.runs
        tally.attempts = max(tally.attempts, row.attempts)
        tally.step += int(row.step or 0)
        tally.epoch += float(row.epoch or 0.0)
        tally.samples += int(row.samples or 0)
        tally.fraction += fraction
        tally.spent += row.runs if row.status in TERMINAL else fraction
        known[row.job_id] += row.with_total
        totals[row.job_id] += int(row.total_steps or 0)
    for job_id, tally in found.items():
        if tally.runs and known[job_id] == tally.runs:
            tally.total_steps = totals[job_id]
    return found


def _by_status(session: Session, job_ids: Sequence[str]) -> Result[Any]:
    counting = _counting(session.get_bind().dialect.name)
    if len(job_ids) == 1:
        return session.execute(counting.where(_ONE), {"of_job": job_ids[0]})
    return session.execute(counting.where(among(session, Run.job_id, job_ids)))


_ONE = Run.job_id == bindparam("of_job")


@cache
def _counting(dialect: str) -> Select[Any]:
    number: dict[str, ColumnElement[Any]]
    record = None
    if dialect == "postgresql":
        # Parsed once, where ``->>`` parses anew for each number. No record can be made of what is
        # no object, such as a JSON null.
        known = case((func.json_typeof(Run.progress) == "object", Run.progress))
        columns = [column(name, Float(53)) for name in _PROGRESS]
        record = func.json_to_record(known).table_valued(*columns)
        record = record.render_derived(with_types=True)
        number = {name: record.c[name] for name in _PROGRESS}
    else:
        number = {n: cast(Run.progress[n].as_string(), Float(53)) for n in _PROGRESS}
    statement: Any = select(
        Run.job_id,
        Run.status,
        func.count().label("runs"),
        func.max(Run.attempt).label("attempts"),
        *(func.sum(number[name]).label(name) for name in _PROGRESS),
        func.count(number["total_steps"]).label("with_total"),
    )
    if record is not None:
        statement = statement.join_from(Run, record, true(), isouter=True)
    grouped: Select[Any] = statement.group_by(Run.job_id, Run.status)
    return grouped
