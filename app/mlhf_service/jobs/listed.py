"""Pages of jobs as JSON. A job is written once, and again when it has changed.

Of hundreds of jobs on a page almost all have ended or wait. Whether one is still as it was written
is seen by its own row and its tags; neither its specification is read and parsed again, nor its
runs. Of a sweep that trains it is seen by who wrote its runs last, where the database tells that;
other jobs that train are always written anew.
"""

from collections.abc import Sequence
from typing import Any

from pydantic_core import to_json
from sqlalchemy.orm import Session

from mlhf_service.jobs import repository, views
from mlhf_service.kit.kept import Kept
from mlhf_service.runs import projects

_Key = tuple[Any, ...]
_KEPT: Kept[_Key, bytes] = Kept(most_bytes=16 * 2**20)
_KEYS_BYTES = 1000  # of a key, about


def page(session: Session, job_ids: Sequence[str], next_cursor: str | None) -> bytes:
    """A page of jobs, as ``Page[JobView]`` would be written."""
    keys = _keys(session, job_ids)
    written = {job_id: found for job_id, key in keys.items() if (found := _KEPT.get(key))}
    unwritten = [job_id for job_id in job_ids if job_id not in written]
    if unwritten:
        fresh = {
            job["id"]: to_json(job, inf_nan_mode="null") for job in views.listed(session, unwritten)
        }
        # What has changed between the queries would be kept under what it was before.
        resting = [job_id for job_id in unwritten if job_id in keys]
        for job_id, key in _keys(session, resting).items() if resting else ():
            if key == keys[job_id] and job_id in fresh:
                _KEPT.put(key, fresh[job_id], len(fresh[job_id]) + _KEYS_BYTES)
        written |= fresh
    of_page = b",".join(written[job_id] for job_id in job_ids if job_id in written)
    return b'{"data":[%b],"next_cursor":%b}' % (of_page, to_json(next_cursor))


def _keys(session: Session, job_ids: Sequence[str]) -> dict[str, _Key]:
    """All that changes of jobs, by id: equal means that nothing has. Some have none."""
    rows = repository.versions(session, job_ids)
    named = projects.names(session, (project for _, project, _ in rows))
    return {
        job_id: (job_id, project, named.get(project or ""), *version)
        for job_id, project, version in rows
    }
