"""Where a job stands in line: priorities that age, and turns between the jobs of one key.

Jobs of one key are started by ``rank``, the lowest first. A rank is a time by the database's
clock: that from which the job waits, put earlier by its priority. As all ranks move with time
alike, a job of low priority that has waited long enough comes before any newer one, and no rank
has to be written again while it waits. A job that was just served (a run of it started or ended)
goes back as if it had been submitted later, so that a single job comes before the rest of a sweep.
"""

from datetime import datetime

from sqlalchemy import ColumnElement

from mlhf_service.database import db_now
from mlhf_service.jobs.models import Job

# A level of priority outweighs this much waiting; so does not having been served just now.
LEVEL_SECONDS = 900.0


def at_submission(priority: int, start_at: datetime | None) -> ColumnElement[float] | float:
    """The rank of a new job, which waits from now on, or from its scheduled start."""
    earlier = LEVEL_SECONDS * priority
    if start_at is not None:
        return start_at.timestamp() - earlier
    return db_now() - earlier


def after_service() -> ColumnElement[float]:
    """The rank of a job one of whose runs has just started or ended, for an update of it."""
    return db_now() + LEVEL_SECONDS * (1 - Job.priority)
