"""What processes of an earlier version leave undone with the runs that they write.

During a rolling upgrade an older API makes runs, and older workers end them, without the values
that runs are searched by (``runs.values``), and without an upload's name and the job's tags; and
older workers let go nothing that was held back for a run (``jobs.held``).
"""

import time
from collections.abc import Sequence

from sqlalchemy import and_, exists, or_, select
from ulid import ULID

from mlhf_service.database import Database
from mlhf_service.datasets.models import Dataset
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.jobs.state import settle
from mlhf_service.runs import values
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import HELD_UNTIL, TERMINAL
from mlhf_service.runs.values import RunValue

_SECONDS = 30 * 86_400.0  # runs made before were complete when the schema was migrated
_BATCH = 500


def complete(database: Database) -> int:
    """Derive what is missing of the runs of the last thirty days. Returns of how many."""
    found = _incomplete(database)
    for start in range(0, len(found), _BATCH):
        with database.write() as session:
            query = select(Run).where(Run.id.in_(found[start : start + _BATCH]))
            for run in session.scalars(query.with_for_update()):
                present = set(
                    session.scalars(select(RunValue.key).where(RunValue.run_id == run.id))
                )
                if not present:
                    named = select(Dataset.name).where(Dataset.id == run.dataset)
                    run.dataset_name = run.dataset_name or session.scalar(named)
                    tags = select(JobTag).where(JobTag.job_id == run.job_id)
                    own = {tag.key: tag.value for tag in session.scalars(tags)}
                    run.tags = run.tags or own or None
                flat = values.of_run(run)
                new = {key: value for key, value in flat.items() if key not in present}
                values.write(session, values.rows(run, new))
    return len(found)


def release_held(database: Database) -> int:
    """Let go runs that an older worker, which ended what they waited for, has left held back.

    Only those of jobs that do nothing else: others are settled soon. Returns of how many jobs.
    """
    running = exists().where(Run.job_id == Job.id, Run.status == "running")
    stuck = select(Job.id).where(Job.ready_at == HELD_UNTIL, ~running).limit(_BATCH)
    with database.read() as session:
        found = session.scalars(stuck).all()
    for job_id in found:
        with database.write() as session:
            if (job := jobs.lock(session, job_id)) is not None:
                settle(session, job)
    return len(found)


def _incomplete(database: Database) -> Sequence[str]:
    """Runs without any value, and those that have ended without their steps as a value."""
    since = f"run_{ULID.from_timestamp(time.time() - _SECONDS)}".lower()
    any_value = exists().where(RunValue.run_id == Run.id)
    steps = exists().where(RunValue.run_id == Run.id, RunValue.key == "steps")
    ended = and_(Run.status.in_(TERMINAL), Run.totals.is_not(None), ~steps)
    query = select(Run.id).where(Run.id > since, or_(~any_value, ended)).order_by(Run.id)
    with database.read() as session:
        return session.scalars(query).all()
