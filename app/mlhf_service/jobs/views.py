"""Show a job: its row, and its runs in numbers, as one object for clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy import Row
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs import repository, tally
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.schemas import RUN_IDS_IN_LISTS, JobView
from mlhf_service.jobs.tally import Tally
from mlhf_service.runs import projects

_LIST = TypeAdapter(list[JobView])


def view(session: Session, job: Job) -> JobView:
    """The job with the ids of all its runs."""
    ids = repository.run_ids(session, job.id)
    named = projects.names(session, [job])
    return JobView.model_validate(_fields(job, _tags(job), tally.of(session, job), ids, named))


def made(job: Job) -> JobView:
    """A job that was just made, all of whose runs wait: nothing is read for it."""
    counts = Counter(run.status for run in job.runs)
    ids = [run.id for run in job.runs]
    named = {job.project_id: job.spec["project"]} if job.project_id else {}
    return JobView.model_validate(_fields(job, _tags(job), Tally(dict(counts)), ids, named))


def items(session: Session, job_ids: Sequence[str]) -> list[JobView]:
    """Jobs as lists show them: each with the first of its runs' ids only."""
    jobs, tags = repository.rows(session, job_ids), repository.tags(session, job_ids)
    tallies = tally.of_all(session, jobs)
    ids = repository.first_run_ids(session, job_ids, RUN_IDS_IN_LISTS)
    named = projects.names(session, jobs)
    return _LIST.validate_python(
        [_fields(job, tags.get(job.id, {}), tallies[job.id], ids[job.id], named) for job in jobs]
    )


def _tags(job: Job) -> dict[str, str]:
    return {tag.key: tag.value for tag in job.tags}


def _fields(
    job: Job | Row[Any],
    tags: dict[str, str],
    tally: Tally,
    run_ids: Sequence[str],
    projects_named: Mapping[str, str],
) -> dict[str, Any]:
    """What a JobView is made of; all of a list are validated at once."""
    return {
        "id": job.id,
        "kind": job.kind,
        "name": job.name,
        "tags": tags,
        "project": projects_named.get(job.project_id or "", projects.DEFAULT),
        "notes": job.notes,
        "status": job.status,
        "desired": job.desired,
        "attempts": tally.attempts,
        "progress": progress(job, tally),
        "error": job.error,
        "run_ids": run_ids,
        "runs": tally.counts,
        "priority": job.priority,
        "start_at": job.start_at,
        "max_parallel_runs": job.max_parallel_runs,
        "spec": job.spec,
        "retried_from": job.retried_from,
        "cloned_from": job.cloned_from,
        "created_at": job.created_at,
        "started_at": job.started_at,
        "finished_at": job.finished_at,
        "archived_at": job.archived_at,
    }


def progress(job: Job | Row[Any], tally: Tally) -> dict[str, Any]:
    """A Progress: sums over the runs; the fraction is the mean of theirs."""
    runs = max(1, tally.runs)
    spent = tally.spent / runs
    eta = None
    since = job.running_since or job.started_at
    if job.status == "running" and since is not None and 0 < spent < 1:
        worked = job.worked_seconds + (now() - since).total_seconds()
        eta = worked * (1 - spent) / spent
    return {
        "step": tally.step,
        "total_steps": tally.total_steps,
        "epoch": tally.epoch,
        "samples": tally.samples,
        "fraction": tally.fraction / runs,
        "eta_seconds": eta,
    }
