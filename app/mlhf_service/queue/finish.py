"""End an attempt: the run's next status, from its trainer's terminal event or the lack of one."""

from dataclasses import dataclass
from typing import Any

from sqlalchemy.orm import Session

from mlhf_service import measures
from mlhf_service.database import db_now
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.jobs.state import move
from mlhf_service.kit.problems import document
from mlhf_service.runs.metrics import label
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import DIVERGED, LOGGED

MAX_BACKOFF_SECONDS = 30.0
_EVALUATED = ("train_loss", "test_loss", "train_accuracy", "test_accuracy")
# Failures of the machine that trained, which say nothing about the run.
OF_THE_WORKER = {"installation", "isolation", "device", "disk"}
# Failures that are the deployment's, or ours, and not of what was asked for.
OURS = OF_THE_WORKER | {"package", "internal"}
MAX_WORKER_FAULTS = 10  # in a row, of one run; each has made its worker unfit for a while


@dataclass(frozen=True)
class Outcome:
    """How an attempt ended.

    ``finished``, ``failed`` and ``interrupted`` are what the trainer said; ``lost``: it ended
    without a word; ``unfit``: its worker could not carry it out; ``bad checkpoint``: the one it
    was to resume from cannot be loaded.
    """

    kind: str
    event: dict[str, Any]
    reason: str = ""


def end_attempt(session: Session, job: Job, run: Run, outcome: Outcome, max_attempts: int) -> None:
    """Move ``run`` to where its attempt leaves it. The job is locked; the caller settles."""
    if outcome.kind == "finished":
        if outcome.event["status"] == "succeeded":
            move(session, run, "succeeded")
            _say(session, run, "info", f"succeeded {_reached(run)}")
        else:
            error = _diverged(outcome.event)
            move(session, run, "failed", error)
            _say(session, run, "error", f"diverged {_reached(run)}. {error['detail']}")
    elif outcome.kind == "failed":
        error = outcome.event["error"]
        status = 500 if error["type"] in OURS else 422
        body = document(status, error["type"], error["title"], error.get("detail"))
        move(session, run, "failed", body)
        _say(session, run, "error", f"failed: {body['title']}. {body.get('detail') or ''}".strip())
    elif job.desired == "cancel":
        move(session, run, "cancelled")
        _say(session, run, "info", f"cancelled {_reached(run)}")
    elif outcome.kind in ("interrupted", "bad checkpoint") and run.kind != LOGGED:
        _wait(session, job, run, 0.0, outcome.kind)
    elif outcome.kind == "unfit":
        _failed_by_worker(session, job, run, outcome.reason)
    else:
        _lost(session, job, run, outcome.reason, max_attempts)


def _failed_by_worker(session: Session, job: Job, run: Run, reason: str) -> None:
    """Wait for another worker, or for this one to be fit again; not without end."""
    run.worker_faults += 1
    _warn(session, run, reason)
    if run.worker_faults >= MAX_WORKER_FAULTS:
        detail = (
            f"Given up: workers could not carry it out {run.worker_faults} times in a row. The "
            f"last time: {reason} Mend the workers, then retry the job."
        )
        move(session, run, "failed", document(500, "lost", "The run was lost", detail))
    else:
        _wait(session, job, run, min(2.0 ** (run.worker_faults - 1), MAX_BACKOFF_SECONDS), "unfit")


def _warn(session: Session, run: Run, reason: str) -> None:
    _say(session, run, "warning", f"attempt {run.attempt}: {reason}")


def _say(session: Session, run: Run, level: str, message: str) -> None:
    add_event(session, run.job_id, "log", {"run_id": run.id, "level": level, "message": message})


def _reached(run: Run) -> str:
    """How far a run came, and what it measured last."""
    totals, summary = run.totals or {}, run.summary or {}
    steps = totals.get("steps", (run.progress or {}).get("step", 0))
    last = [
        f"{label(name)} {value:.4g}"
        for name in _EVALUATED
        if isinstance(value := (summary.get(name) or {}).get("last"), int | float)
    ]
    seconds = totals.get("wall_seconds")
    trained = f", {seconds:.3g} s of training" if seconds is not None else ""
    return f"after {steps:,} steps{trained}{': ' if last else ''}{', '.join(last)}"


def _lost(session: Session, job: Job, run: Run, reason: str, max_attempts: int) -> None:
    run.failures += 1
    _warn(session, run, reason)
    if run.kind == LOGGED:  # there is nobody else to train it
        move(session, run, "failed", document(500, "lost", "The run was lost", reason))
    elif run.failures >= max_attempts:
        attempts = f"{run.failures} of {run.attempt} attempts did not end"
        detail = f"Given up: {attempts}. The last: {reason}"
        move(session, run, "failed", document(500, "lost", "The run was lost", detail))
    else:
        backoff = 0.0 if run.failures == 1 else 2.0 ** (run.failures - 2)
        _wait(session, job, run, min(backoff, MAX_BACKOFF_SECONDS), "lost")


def _wait(session: Session, job: Job, run: Run, seconds: float, reason: str) -> None:
    measures.RETRIES.labels(reason).inc()
    move(session, run, "paused" if job.desired == "pause" else "queued")
    run.available_at = db_now() + seconds
    if run.status == "queued":
        session.add(Outbox(queue=run.queue))


def _diverged(event: dict[str, Any]) -> dict[str, Any]:
    detail = event.get("reason") or "The loss or a parameter is no longer finite."
    return document(422, DIVERGED.rpartition("/")[2], "The run diverged", detail)
