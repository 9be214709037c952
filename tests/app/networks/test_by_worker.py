"""An API without torch has a worker's machine check networks; without one it says so."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, insert, select, update

from mlhf.core.errors import DataError
from mlhf.models.graph.examination import answer
from mlhf_service.database import Database, db_now, now
from mlhf_service.networks import by_worker
from mlhf_service.networks.examiner import Bounds, ExaminerLostError, sizes_of
from mlhf_service.networks.models import Network, NetworkCheck
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.workers import repository as workers
from mlhf_service.workers.models import Worker

GRAPH = {
    "inputs": [{"name": "x", "shape": [4]}],
    "layers": {"head": {"type": "Linear", "args": {"in_features": 4, "out_features": 3}}},
    "nodes": [{"name": "y", "layer": "head", "args": ["%x"]}],
    "outputs": "%y",
}
BOUNDS = Bounds(2**30, 60.0)


@pytest.fixture(autouse=True)
def _no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mlhf_service.networks.endpoints.is_possible", lambda: False)


@pytest.fixture
def worker(database: Database) -> None:
    row = {"id": "wrk_1", "name": "cpu-1", "host": "there", "pid": 1, "queue": "cpu"}
    row |= {"version": "0", "device": {"type": "cpu"}, "memory_bytes": 2**30, "cores": 1}
    with database.write() as session:
        workers.beat(session, {**row, "state": "idle", "run_id": None, "started_at": now()})
        session.execute(update(Worker).values(seen_at=db_now() + 3600))  # however long this takes


@pytest.fixture
def checker(settings: Settings, database: Database) -> by_worker.Checker:
    """One whose checks are made in this process."""
    checker = by_worker.Checker(settings, database)
    checker._examiner.ask = _here  # type: ignore[method-assign]
    return checker


def _here(graph: Any, weights: Any, bounds: Bounds) -> dict[str, Any]:
    return answer({"graph": graph, "weights": weights})


@pytest.fixture
def at_work(checker: by_worker.Checker) -> Iterator[by_worker.Checker]:
    ended = threading.Event()

    def work() -> None:
        while not ended.wait(0.02):
            checker.check_one()

    thread = threading.Thread(target=work)
    thread.start()
    yield checker
    ended.set()
    thread.join()


def _upload(client: TestClient, graph: Any, **files: bytes) -> Any:
    sent = {"graph": json.dumps(graph).encode(), **files}
    return client.post("/v1/networks", data={"name": "mine"}, files=sent)


def _left(database: Database) -> int:
    with database.read() as session:
        return session.scalar(select(func.count()).select_from(NetworkCheck)) or 0


def test_without_a_worker_it_is_unavailable(
    client: TestClient, database: Database, storage: FolderStorage
) -> None:
    refused = _upload(client, GRAPH)
    assert refused.status_code == 503
    assert "no worker" in refused.json()["detail"]
    assert refused.headers["Retry-After"]
    assert _left(database) == 0
    assert list(storage.list("networks")) == []


@pytest.mark.usefixtures("worker", "at_work")
def test_a_worker_checks_what_is_uploaded(
    client: TestClient, database: Database, storage: FolderStorage
) -> None:
    made = _upload(client, GRAPH)
    assert made.status_code == 201, made.text
    assert made.json()["parameters"] == 15
    assert client.get(f"/v1/networks/{made.json()['id']}/graph").json() == GRAPH
    kept = {entry.key for entry in storage.list("networks")}

    refused = _upload(client, {**GRAPH, "outputs": "%z"})
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/graph/outputs"
    refused = _upload(client, GRAPH, weights=b"none")
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/weights"
    assert {entry.key for entry in storage.list("networks")} == kept
    assert _left(database) == 0
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(Network)) == 1


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_one_that_nobody_takes_is_unavailable(
    client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_worker, "_TAKEN_WITHIN_SECONDS", 0.2)
    refused = _upload(client, GRAPH)
    assert refused.status_code == 503
    assert "no worker takes the check" in refused.json()["detail"]
    assert _left(database) == 0


def _row(database: Database, **fields: Any) -> None:
    row = {"id": "chk_1", "storage_key": "networks/net_1", "weights": False}
    row |= {"memory_bytes": 2**30, "seconds": 60.0, "asked_at": db_now(), **fields}
    with database.write() as session:
        session.execute(insert(NetworkCheck).values(row))


def test_what_a_dead_one_has_taken_is_taken_by_another(
    checker: by_worker.Checker, database: Database
) -> None:
    _row(database, taken_by="another", taken_until=db_now() + 60)
    assert not checker.check_one()
    with database.write() as session:
        session.execute(update(NetworkCheck).values(taken_until=db_now() - 1))
    assert checker.check_one()
    with database.read() as session:
        found = session.execute(select(NetworkCheck.answer, NetworkCheck.taken_by)).one()
    assert found[1] == checker._name
    assert "on the worker's machine" in found[0]["lost"]  # there are no such files
    assert not checker.check_one()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize(
    ("said", "raised"),
    [({"data": "too much"}, DataError), ({"lost": "no torch there"}, ExaminerLostError)],
)
@pytest.mark.usefixtures("worker")
def test_errors_come_back(
    database: Database,
    checker: by_worker.Checker,
    monkeypatch: pytest.MonkeyPatch,
    said: dict[str, str],
    raised: type[Exception],
) -> None:
    monkeypatch.setattr(checker, "_checked", lambda row: said)
    asked = by_worker._insert

    def insert_and_check(row: dict[str, Any]) -> Any:
        threading.Timer(0.1, checker.check_one).start()
        return asked(row)

    monkeypatch.setattr(by_worker, "_insert", insert_and_check)
    with pytest.raises(raised, match=next(iter(said.values()))):
        sizes_of(by_worker.ask(database, "networks/net_1", False, BOUNDS, 30.0))
