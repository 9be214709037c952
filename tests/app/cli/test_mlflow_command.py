"""Runs are mirrored to MLflow: parameters, metrics, status; nothing twice."""

from typing import Any

import httpx
import pytest

from mlhf_service.client import ServiceError
from mlhf_service.client.mlflow import Mlflow
from mlhf_service.database import Database, now
from mlhf_service.runs.models import Run
from tests.app.cli.conftest import Call
from tests.app.client.mlflow_server import MlflowServer
from tests.app.conftest import Rows

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> MlflowServer:
    server = MlflowServer()
    make = httpx.Client

    def made(*args: Any, **given: Any) -> httpx.Client:
        if "/api/2.0/mlflow" in str(given.get("base_url", "")):
            given["transport"] = server.transport()
        return make(*args, **given)

    monkeypatch.setattr("mlhf_service.client.mlflow.httpx.Client", made)
    return server


def metrics(run: dict[str, Any], name: str) -> list[tuple[int, Any]]:
    return [(m["step"], m["value"]) for m in run["data"]["metrics"] if m["key"] == name]


def test_a_run_is_written_once_and_followed(
    call: Call, rows: Rows, database: Database, server: MlflowServer
) -> None:
    config = {"optimizer": {"name": "adam", "params": {"lr": 0.5}}}
    started = {"status": "running", "started_at": now(), "tags": {"team": "vision"}}
    run = rows.run(rows.job(status="running"), name="a run", config=config, **started)
    rows.points(run, "train_loss", {0: 2.0, 1: float("nan")})
    said = call("mlflow", run, "--to", "http://mlflow")
    assert said.output.startswith(f"{run} running → "), said.exception
    (there,) = server.runs.values()
    assert there["info"]["run_name"] == "a run"
    assert server.experiments == {"mlhf/default": "1"}
    params = {one["key"]: one["value"] for one in there["data"]["params"]}
    assert params["optimizer.lr"] == "0.5"
    assert params["optimizer"] == "adam"
    assert metrics(there, "train_loss") == [(0, 2.0), (1, "NaN")]
    times = [m["timestamp"] - there["info"]["start_time"] for m in there["data"]["metrics"]]
    assert times == [0, 500]
    rows.points(run, "train_loss", {2: 0.5})
    with database.write() as session:
        session.get_one(Run, run).status = "succeeded"
        session.get_one(Run, run).finished_at = now()
    for _ in range(2):
        assert f"{run} succeeded" in call("mlflow", "--to", "http://mlflow").output
    assert list(server.runs) == [there["info"]["run_id"]]
    assert metrics(there, "train_loss") == [(0, 2.0), (1, "NaN"), (2, 0.5)]
    assert there["info"]["status"] == "FINISHED"
    assert there["info"]["end_time"] > there["info"]["start_time"]


def test_long_runs_go_in_batches_and_all_of_a_job(
    call: Call, rows: Rows, server: MlflowServer
) -> None:
    job = rows.job()
    runs = [rows.run(job, position=place, status="failed") for place in (0, 1)]
    rows.points(runs[0], "batch_loss", {step: 1 / (step + 1) for step in range(1900)})
    call("mlflow", job, "--to", "http://mlflow", "--experiment", "ours")
    assert server.experiments == {"ours": "1"}
    assert [one["info"]["status"] for one in server.runs.values()] == ["FAILED", "FAILED"]
    sizes = sorted(len(one["data"]["metrics"]) for one in server.runs.values())
    assert sizes == [0, 1900]


def test_what_goes_wrong_is_said(
    call: Call, rows: Rows, server: MlflowServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = rows.run()
    monkeypatch.setattr(MlflowServer, "_runs_create", lambda *_: [][0])
    failed = call("mlflow", run, "--to", "http://mlflow").exception
    assert isinstance(failed, ServiceError)
    assert "MLflow refused runs/create" in str(failed)
    monkeypatch.setattr(server, "transport", lambda: httpx.MockTransport(lambda _: _no_json()))
    with pytest.raises(ServiceError, match="not as MLflow does"), Mlflow("http://mlflow") as there:
        there._call("GET", "experiments/get-by-name", {})


def _no_json() -> httpx.Response:
    return httpx.Response(502, text="<html>")
