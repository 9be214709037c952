"""What a deployment allows, refused by field, value and limit; and why a job waits."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import update

from mlhf_service.database import Database, now
from mlhf_service.jobs.models import Job
from mlhf_service.settings import Settings
from mlhf_service.workers import repository as workers

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

GIB = 2**30
SPEC: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [4]}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "sgd"},
    "budget": {"steps": 2},
}


def refused(client: TestClient, **changes: Any) -> tuple[str, str]:
    response = client.post("/v1/jobs", json={**SPEC, **changes})
    assert response.status_code == 422, response.text
    (error,) = response.json()["errors"]
    return error["pointer"], error["detail"]


@pytest.mark.parametrize(
    ("budget", "field"),
    [
        ({"steps": 10**12}, "steps"),
        ({"epochs": 100_000, "steps": 10**10, "samples": 10**14}, "steps"),
        ({"samples": 10**13}, "samples"),
        ({"steps": 1, "wall_seconds": 1e9}, "wall_seconds"),
    ],
)
def test_a_budget_without_end_is_refused(
    app: FastAPI, settings: Settings, client: TestClient, budget: dict[str, Any], field: str
) -> None:
    app.state.settings = settings.model_copy(update={"max_steps": 10**6})
    pointer, detail = refused(client, budget=budget)
    assert pointer == f"/budget/{field}"
    assert "at most" in detail
    assert "MLHF_MAX_" in detail
    task = {name: SPEC[name] for name in ("model", "dataset")} | {"budget": budget}
    response = client.post("/v1/jobs", json={"kind": "ablation", "tasks": [task]})
    assert response.json()["errors"][0]["pointer"] == f"/tasks/0/budget/{field}"


def test_more_threads_than_any_worker_has_cores_are_refused(
    app: FastAPI, settings: Settings, database: Database, client: TestClient
) -> None:
    many = {**SPEC, "resources": {"threads": 1024, "device": "cpu"}}
    assert client.post("/v1/jobs", json=many).status_code == 201  # who knows who will come
    register(database, cores=2)
    register(database, "big", cores=8)
    pointer, detail = refused(client, resources={"threads": 9, "device": "cpu"})
    assert pointer == "/resources/threads"
    assert "9 threads" in detail
    assert "at most 8" in detail
    assert client.post("/v1/jobs", json=SPEC | {"resources": {"threads": 8}}).status_code == 201
    app.state.settings = settings.model_copy(update={"max_threads": 4})
    assert "MLHF_MAX_THREADS" in refused(client, resources={"threads": 5})[1]


def test_the_limits_are_shown(client: TestClient, settings: Settings) -> None:
    shown = client.get("/v1/limits").json()
    for name in ("max_wall_seconds", "max_steps", "max_memory_bytes", "max_sweep_runs"):
        assert shown[name] == getattr(settings, name)


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"priority": 11}, "/priority"),
        ({"priority": 1.5}, "/priority"),
        ({"start_at": "2027-01-01T00:00:00"}, "/start_at"),  # in which time zone?
        ({"start_at": "soon"}, "/start_at"),
        ({"start_at": "9999-01-01T00:00:00Z"}, "/start_at"),
        ({"max_parallel_runs": 0}, "/max_parallel_runs"),
    ],
)
def test_places_in_line_that_are_not_understood(
    client: TestClient, changes: dict[str, Any], pointer: str
) -> None:
    assert refused(client, **changes)[0] == pointer


def test_jobs_are_listed_by_priority(client: TestClient) -> None:
    for priority in (0, 5, -3, 5):
        client.post("/v1/jobs", json={**SPEC, "priority": priority})
    found, cursor = [], None
    while True:
        query: dict[str, Any] = {"sort": "-priority", "limit": 1}
        page = client.get("/v1/jobs", params=query | ({"cursor": cursor} if cursor else {})).json()
        found += [job["priority"] for job in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == [5, 5, 0, -3]
    filtered = client.get("/v1/jobs", params={"priority": 5}).json()["data"]
    assert [job["priority"] for job in filtered] == [5, 5]
    by_name = client.get("/v1/jobs", params={"sort": "name", "limit": 1}).json()["next_cursor"]
    assert client.get("/v1/jobs", params={"sort": "priority", "cursor": by_name}).status_code == 400


def register(database: Database, name: str = "one", **fields: Any) -> None:
    """A worker's heartbeat."""
    row = {
        "id": f"worker_{name}",
        "name": name,
        "host": "here",
        "pid": 1,
        "queue": "cpu",
        "version": "0",
        "device": {"type": "cpu"},
        "memory_bytes": 8 * GIB,
        "cores": 2,
        "state": "idle",
        "reason": None,
        "run_id": None,
        "lacking": [],
        "started_at": now(),
        **fields,
    }
    columns = {column.key for column in workers.Worker.__table__.columns}
    with database.write() as session:
        workers.beat(session, {name: value for name, value in row.items() if name in columns})


def test_a_job_says_why_it_waits(
    app: FastAPI, settings: Settings, database: Database, client: TestClient
) -> None:
    app.state.settings = settings.model_copy(update={"gpu": False})
    made = client.post("/v1/jobs", json=SPEC).json()
    assert made["waiting"] is None

    def waiting(**columns: Any) -> str:
        with database.write() as session:
            if columns:
                session.execute(update(Job).where(Job.id == made["id"]).values(**columns))
        reason = client.get(f"/v1/jobs/{made['id']}").json()["waiting"]
        assert isinstance(reason, str)
        return reason

    assert "No worker of the queue cpu" in waiting()
    register(database)
    assert waiting() == "It waits for its turn."
    large = waiting(memory_bytes=9 * GIB)
    assert "9.0 GiB" in large
    assert "8.0 GiB" in large
    assert "scheduled" in waiting(start_at=now() + timedelta(hours=1))
    client.post(f"/v1/jobs/{made['id']}/cancel")
    assert client.get(f"/v1/jobs/{made['id']}").json()["waiting"] is None
