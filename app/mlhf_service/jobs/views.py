"""Show a job: its row, and its runs in numbers, as one object for clients."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter
from sqlalchemy.orm import Session

from mlhf_service.database import now
from mlhf_service.jobs import repository, tally
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.schemas import RUN_IDS_IN_LISTS, JobView, RunCounts
from mlhf_service.jobs.tally import Tally
from mlhf_service.kit.problems import ProblemDocument
from mlhf_service.runs import projects

_LIST = TypeAdapter(list[JobView])
_ERROR = TypeAdapter(ProblemDocument)
_NO_RUNS = RunCounts().model_dump()


def view(session: Session, job: Job) -> JobView:
    """The job with the ids of all its runs."""
    ids = repository.run_ids(session, job.id)
    named = projects.names(session, [job.project_id])
    return JobView.model_validate(_shown(_row(job, ids), tally.of(session, job), named))


def made(job: Job) -> JobView:
    """A job that was just made, all of whose runs wait: nothing is read for it."""
    counts = Counter(run.status for run in job.runs)
    named = {job.project_id: job.spec["project"]} if job.project_id else {}
    row = _row(job, [run.id for run in job.runs])
    return JobView.model_validate(_shown(row, Tally(dict(counts)), named))


def items(session: Session, job_ids: Sequence[str]) -> list[JobView]:
    """Jobs as lists show them: each with the first of its runs' ids only."""
    return _LIST.validate_python(listed(session, job_ids))


def listed(session: Session, job_ids: Sequence[str]) -> list[dict[str, Any]]:
    """As ``items``, not yet validated: what Pydantic writes as JSON alike."""
    rows = repository.listed(session, job_ids, RUN_IDS_IN_LISTS)
    tallies = tally.of_all(session, ((row["id"], row["tally"]) for row in rows))
    named = projects.names(session, (row["project_id"] for row in rows))
    return [_shown(row, tallies[row["id"]], named) for row in rows]


def _row(job: Job, run_ids: Sequence[str]) -> dict[str, Any]:
    """A job as ``repository.listed`` gives it."""
    row = {name: getattr(job, name) for name in repository.LISTED}
    return row | {"tags": {tag.key: tag.value for tag in job.tags}, "run_ids": run_ids}


def _shown(row: dict[str, Any], tally: Tally, named: Mapping[str, str]) -> dict[str, Any]:
    """Turn a row into all that a JobView has, in its order, each as it is shown."""
    row["progress"] = progress(row, tally)
    row["project"] = named.get(row["project_id"] or "", projects.DEFAULT)
    row["tags"] = row["tags"] or {}
    row["run_ids"] = row["run_ids"] or []
    row["attempts"] = tally.attempts
    row["runs"] = _NO_RUNS | tally.counts
    row["waiting"] = None
    if row["error"] is not None:
        row["error"] = _ERROR.validate_python(row["error"])
    return {name: row[name] for name in JobView.model_fields}


def progress(job: Mapping[str, Any], tally: Tally) -> dict[str, Any]:
    """A Progress: sums over the runs; the fraction is the mean of theirs."""
    runs = max(1, tally.runs)
    spent = tally.spent / runs
    eta = None
    since = job["running_since"] or job["started_at"]
    if job["status"] == "running" and since is not None and 0 < spent < 1:
        worked = job["worked_seconds"] + (now() - since).total_seconds()
        eta = worked * (1 - spent) / spent
    return {
        "step": tally.step,
        "total_steps": tally.total_steps,
        "epoch": tally.epoch,
        "samples": tally.samples,
        "fraction": tally.fraction / runs,
        "eta_seconds": eta,
    }
