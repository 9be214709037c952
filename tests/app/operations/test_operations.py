"""Workers and the queue as a user and an administrator see them."""

from datetime import timedelta
from typing import Any

from fastapi.testclient import TestClient

from mlhf_service.database import Database, db_now, now
from mlhf_service.runs.models import Run
from mlhf_service.workers import repository as workers
from tests.app.conftest import Rows


def worker(database: Database, **fields: Any) -> None:
    row = {
        "id": "wk_1",
        "name": "cpu-1",
        "host": "here",
        "pid": 7,
        "queue": "cpu",
        "version": "1",
        "device": {"type": "cpu"},
        "memory_bytes": 2**30,
        "cores": 2,
        "state": "idle",
        "reason": None,
        "run_id": None,
        "started_at": now(),
        **fields,
    }
    with database.write() as session:
        workers.beat(session, row)


def test_workers(client: TestClient, database: Database, rows: Rows) -> None:
    assert client.get("/v1/workers").json() == {"data": []}
    run = rows.run(status="running")
    foreign = rows.run(rows.job(tenant="other"), tenant="other", status="running")
    worker(database, state="training", run_id=run)
    worker(database, id="wk_2", state="training", run_id=foreign)
    worker(database, id="wk_3", state="unfit", reason="the disk is full")
    worker(database, id="wk_4")
    with database.write() as session:
        from sqlalchemy import update

        from mlhf_service.workers.models import Worker

        session.execute(update(Worker).where(Worker.id == "wk_4").values(seen_at=db_now() - 10_000))
    found = client.get("/v1/workers").json()["data"]
    assert [(w["id"], w["state"], w["run_id"]) for w in found] == [
        ("wk_1", "training", run),
        ("wk_2", "training", None),
        ("wk_3", "unfit", None),
        ("wk_4", "silent", None),
    ]
    assert found[2]["reason"] == "the disk is full"
    assert (found[0]["host"], found[0]["pid"]) == ("here", 7)
    assert 9_000 < found[3]["seen_seconds_ago"] < 11_000
    assert client.get("/v1/queue").json()["workers"] == {"cpu": 2}
    page = client.get("/workers")
    assert page.status_code == 200
    assert "the disk is full" in page.text
    assert foreign not in page.text


def test_the_queue(client: TestClient, database: Database, rows: Rows) -> None:
    assert client.get("/v1/queue").json() == {"data": [], "waiting_in_all": 0, "workers": {}}
    urgent = rows.job(status="queued", priority=5)
    rows.run(urgent, status="queued")
    job = rows.job(status="queued")
    old = now() - timedelta(hours=1)
    rows.run(job, status="queued", created_at=old)
    later = rows.run(job, position=1, status="queued")
    rows.run(job, position=2, status="running")
    rows.run(rows.job(tenant="other", status="queued"), tenant="other", status="queued")
    with database.write() as session:
        session.get_one(Run, later).available_at = now().timestamp() + 1000
    found = client.get("/v1/queue").json()
    assert found["waiting_in_all"] == 3
    first, second = found["data"]
    assert (first["priority"], first["waiting"], first["running"]) == (5, 1, 0)
    assert {k: second[k] for k in ("queue", "priority", "waiting", "later", "running")} == {
        "queue": "cpu",
        "priority": 0,
        "waiting": 1,
        "later": 1,
        "running": 1,
    }
    assert 3_500 < second["oldest_seconds"] < 3_800
