"""Runs are written through to MLflow as they go; one that is away costs no run anything."""

import logging
from typing import Any

import httpx
import pytest
from sqlalchemy import update

from mlhf_service.database import Database, now
from mlhf_service.kit.ids import new_id
from mlhf_service.mirrors.models import MirroredRun
from mlhf_service.mirrors.writer import MlflowWriter
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from tests.app.client.mlflow_server import MlflowServer
from tests.app.conftest import Rows

RUNNING: dict[str, Any] = {"status": "running", "started_at": now()}


class Tracked:
    """A writer, the server that it writes to, and whether that answers."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self.server = MlflowServer()
        self.answers = True
        self.asked = 0
        self._database = database
        self.writer = MlflowWriter(settings, database)

    def answer(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        if not self.answers:
            raise httpx.ConnectError("connection refused", request=request)
        return self.server._answer(request)

    def look(self) -> int:
        """One pass, as if every wait were over."""
        with self._database.write() as session:
            session.execute(update(MirroredRun).values(due_at=0.0))
        return self.writer.write_due()

    def metrics(self, name: str) -> list[tuple[int, Any]]:
        (run,) = self.server.runs.values()
        return [(m["step"], m["value"]) for m in run["data"]["metrics"] if m["key"] == name]


@pytest.fixture
def tracked(settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch) -> Tracked:
    made = Tracked(settings.model_copy(update={"mlflow_url": "http://mlflow"}), database)
    make = httpx.Client
    monkeypatch.setattr(
        "mlhf_service.client.mlflow.httpx.Client",
        lambda **given: make(**given, transport=httpx.MockTransport(made.answer)),
    )
    return made


def end(database: Database, run: str, status: str = "succeeded") -> None:
    with database.write() as session:
        row = session.get_one(Run, run)
        row.status, row.finished_at = status, now()


def test_a_run_is_written_while_it_trains_and_once(
    tracked: Tracked, database: Database, rows: Rows
) -> None:
    old = rows.run(rows.job())  # had ended before the setting was there
    tracked.writer._since = new_id("run")
    run = rows.run(rows.job(status="running"), name="a run", **RUNNING)
    rows.points(run, "train_loss", {0: 2.0, 1: 1.5})
    assert tracked.look() == 1
    assert tracked.metrics("train_loss") == [(0, 2.0), (1, 1.5)]
    (there,) = tracked.server.runs.values()
    assert there["info"]["status"] == "RUNNING"
    assert {"key": "mlhf.run_id", "value": run} in there["data"]["tags"], old
    asked = tracked.asked
    tracked.look()
    assert tracked.asked == asked, "nothing is asked while nothing changes"
    rows.points(run, "train_loss", {2: 1.0})
    end(database, run)
    tracked.look()
    assert tracked.metrics("train_loss") == [(0, 2.0), (1, 1.5), (2, 1.0)]
    assert there["info"]["status"] == "FINISHED"
    assert tracked.look() == 0, "what has ended and is written is done with"


def test_a_server_that_is_away_is_a_warning(
    tracked: Tracked, database: Database, rows: Rows, caplog: pytest.LogCaptureFixture
) -> None:
    run = rows.run(rows.job(status="running"), **RUNNING)
    rows.points(run, "train_loss", {0: 2.0})
    tracked.answers = False
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert tracked.look() == 0
    told = [one.getMessage() for one in caplog.records]
    assert len(told) == 1, "said once, not at every pass"
    assert told[0].startswith("no answer from MLflow at http://mlflow")
    with database.read() as session:
        assert session.get_one(Run, run).status == "running"
    end(database, run)
    tracked.answers = True
    assert tracked.look() == 1
    assert tracked.metrics("train_loss") == [(0, 2.0)], "what it missed is written"
    assert "answers again" in caplog.text


def test_a_run_that_is_refused_holds_up_no_other(
    tracked: Tracked, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    create = MlflowServer._runs_create

    def picky(server: MlflowServer, body: Any) -> Any:
        if body["run_name"] == "bad":
            raise ValueError("no such name")
        return create(server, body)

    monkeypatch.setattr(MlflowServer, "_runs_create", picky)
    job = rows.job(status="running")
    for place, name in enumerate(("bad", "good")):
        rows.run(job, position=place, name=name, **RUNNING)
    assert tracked.look() == 1
    assert [one["info"]["run_name"] for one in tracked.server.runs.values()] == ["good"]


def test_two_writers_do_not_write_one_run(
    tracked: Tracked, settings: Settings, database: Database, rows: Rows
) -> None:
    rows.run(rows.job(status="running"), **RUNNING)
    other = MlflowWriter(settings.model_copy(update={"mlflow_url": "http://mlflow"}), database)
    assert tracked.writer.write_due() + other.write_due() == 1


@pytest.mark.parametrize("wrong", ["mlflow:5000", "ftp://mlflow", "http://"])
def test_an_address_that_is_none_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="use http://host:5000"):
        Settings(_env_file=None, mlflow_url=wrong)


def test_a_password_in_the_address_is_not_shown() -> None:
    settings = Settings(_env_file=None, mlflow_url="https://me:hush@mlflow")
    assert settings.public()["mlflow_url"] == "https://me:***@mlflow"
    assert "hush" in settings.secrets()
