"""/readyz: false while nothing can be taken, and with warnings while nothing is trained."""

import os
import sqlite3
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy.exc import OperationalError

from mlhf_service import data_folder
from mlhf_service.database import Database
from mlhf_service.health import BrokerWatch
from mlhf_service.kit.problems import is_full
from mlhf_service.settings import Settings
from mlhf_service.workers.fitness import Fitness
from mlhf_service.workers.registration import Identity, Registration
from tests.app.conftest import Rows
from tests.waiting import until

JOB = {
    "kind": "train",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "sgd"},
    "budget": {"steps": 1},
    "batch_size": 4,
}


def _warnings(client: TestClient) -> list[str]:
    answer = client.get("/readyz")
    assert answer.status_code == 200
    body = answer.json()
    assert body["status"] == "ok"
    return list(body["warnings"])


def test_workers_that_are_missing_or_unfit_are_warned_of(
    client: TestClient, settings: Settings, database: Database, rows: Rows
) -> None:
    assert _warnings(client) == ["No worker is there: jobs wait until one starts (mlhf worker)."]
    fitness = Fitness([])
    who = Identity("wrk_1", "cpu-1", "cpu", 7)
    registration = Registration(settings, database, who, {"type": "cpu"}, fitness)
    registration.beat()
    assert _warnings(client) == []
    rows.run(rows.job(status="queued"), status="queued", queue="gpu")
    (warning,) = _warnings(client)
    assert "queue gpu" in warning
    assert "mlhf worker --queue gpu" in warning
    fitness.suspect("The disk of its spool folder is full.", "run_1")
    registration.beat()
    unfit, none_fit, _ = _warnings(client)
    assert "cpu-1" in unfit
    assert "spool folder is full" in unfit
    assert none_fit.startswith("No worker is fit")


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_full_disk_is_not_ready_and_takes_no_jobs(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert client.post("/v1/jobs", json=JOB).status_code == 201
    monkeypatch.setattr(data_folder, "free_bytes", lambda _: 10 * 2**20)
    for path, status in (("/readyz", 503), ("/v1/jobs", 507)):
        answer = client.get(path) if path == "/readyz" else client.post(path, json=JOB)
        assert answer.status_code == status
        assert "10 MiB are free" in answer.json()["detail"]
        assert "Make room" in answer.json()["detail"]
    assert client.get("/v1/jobs").status_code == 200, "what is there can be read"
    monkeypatch.undo()
    assert client.get("/readyz").status_code == 200
    assert client.post("/v1/jobs", json=JOB).status_code == 201


class _PostgresFullError(Exception):
    sqlstate = "53100"


def _sqlite_full() -> Exception:
    error = sqlite3.OperationalError("database or disk is full")
    error.sqlite_errorcode = sqlite3.SQLITE_FULL
    return error


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("original", [_sqlite_full(), _PostgresFullError()])
def test_a_database_without_room_is_told_as_such(
    app: FastAPI, monkeypatch: pytest.MonkeyPatch, original: Exception
) -> None:
    def full(*_: Any) -> None:
        raise OperationalError("insert", {}, original)

    monkeypatch.setattr("mlhf_service.jobs.service.create", full)
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        answer = client.post("/v1/jobs", json=JOB)
    assert (answer.status_code, answer.json()["title"]) == (507, "No room left")
    assert "Make room" in answer.json()["detail"]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_real_full_sqlite_says_so(database: Database, rows: Rows) -> None:
    """SQLite's own limit of pages gives the error that a full disk does."""
    with database.write() as session:
        connection = session.connection()
        connection.exec_driver_sql("create table filler (x)")
        pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
        connection.exec_driver_sql(f"PRAGMA max_page_count={pages}")
        with pytest.raises(OperationalError) as raised:
            connection.exec_driver_sql("insert into filler values (zeroblob(1000000))")
    assert is_full(raised.value)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_broker_that_is_away_is_warned_of(settings: Settings) -> None:
    away = settings.model_copy(update={"broker_url": "redis://user:secret@127.0.0.1:9/0"})
    watch = BrokerWatch(away)
    watch.warning()  # never waits for the broker
    warning = until(watch.warning, "no warning")
    assert "redis://user:***@127.0.0.1:9/0 does not answer" in warning
    assert "secret" not in warning


def test_room_is_that_of_the_folder_or_of_where_it_would_be(tmp_path: Any) -> None:
    there = data_folder.free_bytes(tmp_path)
    assert there > 0
    assert data_folder.free_bytes(tmp_path / "a" / "b") > 0
    assert not os.path.exists(tmp_path / "a")
