"""Answers about ended runs are made once, and anew as soon as anything they show has changed."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import JSON

from mlhf_service.comparisons import service
from mlhf_service.database import Database, UTCDateTime, now
from mlhf_service.runs.models import Run
from tests.app.conftest import Rows

ADDRESSES = {
    "page": "/compare?job={}",
    "json": "/v1/comparisons?job={}",
    "csv": "/v1/comparisons?job={}&format=csv",
    "latex": "/v1/comparisons?job={}&format=latex",
    "svg": "/v1/comparisons?job={}&format=svg",
}


@pytest.fixture
def pair(rows: Rows) -> tuple[str, list[str]]:
    """A job of two runs that have ended, and the runs."""
    job = rows.job(kind="sweep", tags=[])
    runs = [rows.run(job, position=i, seed=i, config={"seed": i}) for i in range(2)]
    for run in runs:
        rows.points(run, "train_loss", {0: 1.0, 10: 0.5})
    return job, runs


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each comparison had that was really made."""
    compare, found = service.compare, list[int]()

    def watched(session: Any, runs: Any, *more: Any) -> Any:
        found.append(len(runs))
        return compare(session, runs, *more)

    monkeypatch.setattr(service, "compare", watched)
    return found


@pytest.mark.parametrize("address", ADDRESSES.values(), ids=ADDRESSES)
def test_what_was_made_is_given_again(
    client: TestClient, pair: tuple[str, list[str]], made: list[int], address: str
) -> None:
    first, again = (client.get(address.format(pair[0])) for _ in range(2))
    assert first.status_code == again.status_code == 200
    assert first.content == again.content
    assert first.headers["content-type"] == again.headers["content-type"]
    assert made == [2]


def test_each_question_has_its_own_answer(
    client: TestClient, pair: tuple[str, list[str]], made: list[int]
) -> None:
    job, runs = pair
    asked = [
        f"/v1/comparisons?job={job}",
        f"/v1/comparisons?run={runs[0]}&run={runs[1]}&target=0.7",
        f"/v1/comparisons?run={runs[0]}&run={runs[1]}&target=0.6",
        f"/v1/comparisons?job={job}&metric=test_loss",
        f"/v1/comparisons?job={job}&x=cpu_seconds",
        f"/v1/comparisons?job={job}&format=csv",
        f"/compare?job={job}",
        f"/compare?job={job}&x=epochs",
        f"/compare?job={job}&target=0.5",
        f"/compare?run={runs[0]}&run={runs[1]}",
    ]
    for address in asked:
        assert client.get(address).status_code == 200
    assert len(made) == len(asked)


def _new(column: str) -> Any:
    """Another value than any run of these tests has."""
    kind = Run.__table__.columns[column].type
    if isinstance(kind, UTCDateTime):
        return now() + timedelta(days=3)
    return {"another": 1} if isinstance(kind, JSON) else {str: "another"}.get(kind.python_type, 77)


UNSEEN = {"id", "job_id", "tenant"}  # by which runs are found
COLUMNS = [column.name for column in Run.__table__.columns if column.name not in UNSEEN]
OF_USE = {"status": "failed", "summary": {"train_loss": {"last": 3.0}}}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("column", COLUMNS)
def test_a_changed_column_makes_a_new_answer(
    client: TestClient,
    database: Database,
    pair: tuple[str, list[str]],
    made: list[int],
    column: str,
) -> None:
    job, runs = pair
    client.get(f"/v1/comparisons?job={job}")
    with database.write() as session:
        run = session.get_one(Run, runs[0])
        value = {**run.config, "batch_size": 3} if column == "config" else _new(column)
        setattr(run, column, OF_USE.get(column, value))
    assert client.get(f"/v1/comparisons?job={job}").status_code == 200
    assert made == [2, 2]


def _points(client: TestClient, rows: Rows, job: str, run: str) -> None:
    rows.points(run, "test_loss", {10: 0.25})


def _renamed(client: TestClient, rows: Rows, job: str, run: str) -> None:
    assert client.patch(f"/v1/runs/{run}", json={"name": "another"}).status_code == 200


def _deleted(client: TestClient, rows: Rows, job: str, run: str) -> None:
    assert client.delete(f"/v1/runs/{run}").status_code == 204


def _joined(client: TestClient, rows: Rows, job: str, run: str) -> None:
    rows.run(job, position=2, seed=2, config={"seed": 2})


@pytest.mark.parametrize("change", [_points, _renamed, _deleted, _joined])
@pytest.mark.parametrize("address", ["/compare?job={}", "/v1/comparisons?job={}"])
def test_every_other_change_makes_a_new_answer(
    client: TestClient,
    rows: Rows,
    pair: tuple[str, list[str]],
    made: list[int],
    change: Callable[..., None],
    address: str,
) -> None:
    job, runs = pair
    client.get(address.format(job))
    change(client, rows, job, runs[1])
    assert client.get(address.format(job)).status_code == 200
    assert len(made) == 2


def test_while_a_run_goes_on_nothing_is_kept(
    client: TestClient, rows: Rows, pair: tuple[str, list[str]], made: list[int]
) -> None:
    job, _ = pair
    rows.run(job, position=2, seed=2, status="running", config={"seed": 2})
    for _ in range(2):
        client.get(f"/v1/comparisons?job={job}")
    assert made == [3, 3]
