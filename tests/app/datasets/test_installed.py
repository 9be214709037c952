"""One home for built-in data sets: none is promised that no worker can read."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database, now
from mlhf_service.datasets.installed import here, not_here
from mlhf_service.queue.claims import claim_next
from mlhf_service.settings import Settings
from mlhf_service.workers import repository
from tests.app.datasets.idx_files import write_mnist

JOB = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "dataset": {"name": "mnist"},
    "optimizer": {"name": "adam"},
    "budget": {"steps": 1},
    "batch_size": 4,
}


@pytest.fixture(autouse=True)
def mnist(settings: Settings) -> None:
    """The API has it."""
    write_mnist(settings.datasets_root / "mnist")


@pytest.fixture
def worker(database: Database) -> Any:
    """Lets a worker say which data sets it has."""

    def beat(name: str, datasets: list[str] | None) -> None:
        fields = {"id": f"wrk_{name}", "name": name, "host": name, "pid": 1, "queue": "cpu"}
        fields |= {"version": "0", "device": {"type": "cpu"}, "memory_bytes": 1, "cores": 1}
        fields |= {"state": "idle", "reason": None, "run_id": None, "started_at": now()}
        with database.write() as session:
            repository.beat(session, fields | {"datasets": datasets})

    return beat


def test_refused_where_no_worker_has_it(client: TestClient, worker: Any) -> None:
    worker("host-a", ["digits"])
    for query in ("", "?validate_only=true"):
        answer = client.post(f"/v1/jobs{query}", json=JOB)
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["pointer"] == "/dataset/name"
        assert "host-a" in error["detail"]
        assert "MLHF_DATASETS_DIR" in error["detail"]
    shown = client.get("/v1/datasets/mnist").json()
    assert (shown["available"], "no worker" in shown["reason"]) == (False, True)
    worker("host-b", ["digits", "mnist"])
    assert client.post("/v1/jobs", json=JOB).status_code == 201
    assert client.get("/v1/datasets/mnist").json()["available"]


def test_accepted_where_no_worker_is_or_says(client: TestClient, worker: Any) -> None:
    assert client.post("/v1/jobs", json=JOB).status_code == 201
    worker("older", None)
    assert client.post("/v1/jobs", json=JOB).status_code == 201


def test_a_worker_without_it_leaves_the_run_to_others(
    client: TestClient, database: Database
) -> None:
    assert client.post("/v1/jobs", json=JOB).status_code == 201
    assert claim_next(database, "cpu", "me", 30.0, lacking=["mnist", "cifar10"]) is None
    assert claim_next(database, "cpu", "me", 30.0, lacking=["cifar10"]) is not None


def test_what_is_here(settings: Settings, tmp_path: Path) -> None:
    assert {"digits", "mnist"} <= set(here(settings))
    assert "cifar10" in not_here(settings)
    elsewhere = settings.model_copy(update={"datasets_dir": tmp_path / "elsewhere"})
    assert "mnist" in not_here(elsewhere)
