"""What a run measures, from its job to its page."""

import io
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

from mlhf_service.context import Context
from mlhf_service.database import Database
from mlhf_service.jobs.kinds.inputs import prepare_training
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from tests.app.queue.worker import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


def test_a_part_is_measured_on_the_way_and_named_and_the_whole_at_the_end(
    worker: Service, client: TestClient
) -> None:
    rng = np.random.default_rng(0)
    y = np.arange(6000) % 3
    file = io.BytesIO()
    np.savez(file, x=rng.normal(size=(6000, 3)) + y[:, None], y=y)
    uploaded = client.post(
        "/v1/datasets",
        data={"name": "mine", "format": "npz"},
        files={"file": ("mine.npz", file.getvalue())},
    ).json()["id"]
    job = {
        "kind": "train",
        "model": {"name": "mlp", "params": {"hidden": [8]}},
        "dataset": {"name": uploaded},
        "optimizer": {"name": "adam"},
        "budget": {"epochs": 2},
        "batch_size": 500,
    }
    ids = []
    for seed in (0, 1):
        posted = client.post("/v1/jobs", json={**job, "seed": seed})
        assert posted.status_code == 201, posted.text
        ids += posted.json()["run_ids"]
        worker.work()
    run_id = ids[0]
    run = client.get(f"/v1/runs/{run_id}").json()
    assert run["status"] == "succeeded", run["error"]
    assert run["environment"]["evaluation"] == {
        "train": {"samples": 512, "of": 4800},
        "test": {"samples": 512, "of": 1200},
    }
    whole = client.get(f"/v1/runs/{run_id}/curves", params={"metric": "whole_train_loss"}).json()
    assert len(whole["series"][0]["points"]) == 1
    part = client.get(f"/v1/runs/{run_id}/curves", params={"metric": "train_loss"}).json()
    assert len(part["series"][0]["points"]) == 3
    page = client.get(f"/runs/{run_id}").text
    assert "512 fixed samples of 4,800" in page
    compared = client.get("/v1/comparisons", params={"run": ids}).json()
    assert {"train_loss", "whole_test_accuracy"} <= compared["runs"][0]["measures"].keys()
    assert "evaluation" not in [warning["code"] for warning in compared["warnings"]]
    wrong = client.post("/v1/jobs", json={**job, "evaluation": {"samples": "most"}})
    assert wrong.status_code == 422
    assert wrong.json()["errors"][0]["pointer"].startswith("/evaluation/samples")


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        ({"every_epochs": 2.0}, "all"),
        ({"every_epochs": 1.0, "max_samples": 5}, None),
        ({"every_epochs": 1.0, "samples": "auto", "share": 0.1}, "auto"),
    ],
)
def test_a_run_of_an_older_version_goes_on_as_it_began(
    settings: Settings,
    database: Database,
    storage: FolderStorage,
    stored: dict[str, Any],
    expected: str | None,
) -> None:
    config = {
        "model": {"name": "mlp", "params": {}},
        "dataset": {"name": "digits", "params": {}},
        "optimizer": {"name": "adam", "params": {}},
        "evaluation": stored,
    }
    with database.read() as session:
        prepared = prepare_training(Context(session, settings, storage), config)
    assert prepared.config["evaluation"].get("samples") == expected
