"""Runs of an uploaded data set: decoded once, whatever the number of runs."""

from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.runs.models import Run
from tests.app.queue.worker import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

JOB: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp"},
    "optimizer": {"name": "adam"},
    "budget": {"epochs": 1},
    "batch_size": 4,
}


def upload(client: TestClient) -> Any:
    table = "a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(40))
    return client.post(
        "/v1/datasets",
        data={"name": "mine", "format": "table", "params": '{"target": "b"}'},
        files={"file": ("mine.csv", table)},
    ).json()


def trained(worker: Service, client: TestClient, uploaded: Any) -> Run:
    posted = client.post("/v1/jobs", json={**JOB, "dataset": {"name": uploaded["id"]}})
    assert posted.status_code == 201, posted.text
    attempt = worker.work()
    run = worker.run(attempt.claim.run_id)
    assert run.status == "succeeded", run.error
    return run


def entries(worker: Service) -> list[Path]:
    return sorted((worker.settings.root / "cache" / "datasets").glob("*.safetensors"))


def test_runs_of_an_upload_share_what_the_first_has_decoded(
    worker: Service, client: TestClient
) -> None:
    uploaded = upload(client)
    runs = [trained(worker, client, uploaded)]
    (entry,) = entries(worker)
    made = entry.stat().st_ino
    runs.append(trained(worker, client, uploaded))
    assert [path.stat().st_ino for path in entries(worker)] == [made]
    entry.unlink()
    worker.settings = worker.settings.model_copy(update={"data_cache_bytes": 0})
    runs.append(trained(worker, client, uploaded))
    assert entries(worker) == []
    assert len({worker.weights(run.id) for run in runs}) == 1
    digests = {run.environment["data_digest"] for run in runs if run.environment}
    assert digests == {uploaded["sha256"]}


def test_a_run_whose_data_cannot_be_kept_says_so_and_succeeds(
    worker: Service, client: TestClient
) -> None:
    folder = worker.settings.root / "cache" / "datasets"
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("in the way")
    run = trained(worker, client, upload(client))
    assert any("is not kept" in message for message in worker.log(run.id))
