"""A job's runs in numbers, counted in the database, and kept when the job has ended."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlhf_service.database import Database, now
from mlhf_service.jobs import repository, state, tally, views
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.state import move, settle
from mlhf_service.runs.models import Run
from tests.app.conftest import Rows


def _progress(step: int, total: int | None = 10, samples: int = 0) -> dict[str, Any]:
    fraction = step / 10
    return {
        "step": step,
        "total_steps": total,
        "epoch": step / 4,
        "samples": samples or 64 * step,
        "fraction": fraction,
    }


def test_runs_are_counted_by_status_and_summed(database: Database, rows: Rows) -> None:
    job_id = rows.job(status="running")
    rows.run(job_id, position=0, attempt=3, progress=_progress(10, samples=2**40))
    rows.run(job_id, position=1, status="running", progress=_progress(4))
    rows.run(job_id, position=2, status="failed", progress=_progress(6))
    rows.run(job_id, position=3, status="queued", attempt=0)
    with database.read() as session:
        found = tally.of(session, session.get_one(Job, job_id))
    assert found.counts == {"succeeded": 1, "running": 1, "failed": 1, "queued": 1}
    assert (found.runs, found.attempts, found.step, found.samples) == (4, 3, 20, 2**40 + 640)
    assert found.total_steps is None  # one does not know its own
    assert abs(found.fraction - 2.0) < 1e-12
    assert abs(found.spent - 2.4) < 1e-12  # of what has ended nothing is left


def test_steps_are_summed_where_all_runs_know_theirs(database: Database, rows: Rows) -> None:
    job_id = rows.job(status="running")
    for position in range(2):
        rows.run(job_id, position=position, status="running", progress=_progress(4))
    with database.read() as session:
        assert tally.of(session, session.get_one(Job, job_id)).total_steps == 20


@pytest.mark.parametrize("stored", ["null", "{}", '{"step": null}'])
def test_a_run_without_progress_adds_nothing(database: Database, rows: Rows, stored: str) -> None:
    job_id = rows.job(status="running")
    rows.run(job_id, status="running", position=0, progress=_progress(5))
    other = rows.run(job_id, status="running", position=1)
    with database.write() as session:
        statement = text("update runs set progress = :stored where id = :id")
        session.execute(statement, {"stored": stored, "id": other})
    with database.read() as session:
        found = tally.count(session, [job_id])[job_id]
    assert (found.counts, found.step, found.total_steps) == ({"running": 2}, 5, None)


def test_what_has_ended_is_counted_once(database: Database, rows: Rows) -> None:
    job_id = rows.job(status="running")
    run_id = rows.run(job_id, status="running", progress=_progress(10))
    with database.write() as session:
        move(session, session.get_one(Run, run_id), "succeeded")
        settle(session, session.get_one(Job, job_id))
    with database.read() as session:
        job = session.get_one(Job, job_id)
        assert job.tally is not None
        assert tally.of(session, job) == tally.count(session, [job_id])[job_id]


def test_lists_name_the_first_runs_of_a_job_and_count_all(
    client: TestClient, database: Database, rows: Rows
) -> None:
    job_id = rows.job(kind="sweep")
    run_ids = [rows.run(job_id, position=2 * place) for place in range(23)]
    rows.run()
    listed = client.get("/v1/jobs", params={"kind": "sweep"}).json()["data"]
    assert [job["id"] for job in listed] == [job_id]
    assert listed[0]["run_ids"] == run_ids[:20]
    assert listed[0]["runs"]["succeeded"] == 23
    assert client.get(f"/v1/jobs/{job_id}").json()["run_ids"] == run_ids
    with database.read() as session:
        for optimizer in ("adam", None):
            first = repository.first_runs(session, [job_id], 3, optimizer)
            assert [run.id for run in first[job_id][0]] == run_ids[:3]
            assert first[job_id][1] == (23 if optimizer else None)


def test_what_is_left_is_told_without_pauses(database: Database, rows: Rows) -> None:
    """A quarter took 60 s of work; the pause between was an hour."""
    job_id = rows.job(status="queued")
    run_id = rows.run(job_id, status="queued", progress=_progress(0))

    def put(status: str, seconds_ago: float) -> None:
        with freeze(state, seconds_ago), database.write() as session:
            move(session, session.get_one(Run, run_id), status)
            settle(session, session.get_one(Job, job_id))

    put("running", 3660.0)
    put("paused", 3630.0)
    put("queued", 31.0)
    put("running", 30.0)
    with database.write() as session:
        session.get_one(Run, run_id).progress = {**_progress(2), "fraction": 0.25}
    with database.read() as session:
        job = session.get_one(Job, job_id)
        left = views.view(session, job).progress.eta_seconds
    assert left is not None
    assert abs(left - 180.0) < 30.0


@contextmanager
def freeze(module: Any, seconds_ago: float) -> Iterator[None]:
    """Let a module's clock stand at so long ago."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "now", lambda: now() - timedelta(seconds=seconds_ago))
        yield
