"""What every kind refuses before a worker sees it: what could not run to its end."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

NORMALIZED: dict[str, Any] = {
    "model": {"name": "mlp", "params": {"hidden": [4], "batch_norm": True}},
    "dataset": {"name": "digits", "params": {"train_samples": 40}},
    "budget": {"steps": 2},
    "batch_size": 8,
}
TRAIN: dict[str, Any] = {**NORMALIZED, "kind": "train", "optimizer": {"name": "sgd"}}


def _refused(client: TestClient, request: dict[str, Any]) -> tuple[str, str]:
    response = client.post("/v1/jobs", json=request)
    assert response.status_code == 422, response.text
    (error,) = response.json()["errors"]
    return error["pointer"], error["detail"]


@pytest.mark.parametrize("kind", ["train", "sweep", "ablation"])
def test_batch_norm_on_batches_of_one(client: TestClient, kind: str) -> None:
    single = {**NORMALIZED, "batch_size": 1}
    request, pointer = {
        "train": ({**TRAIN, **single}, "/batch_size"),
        "sweep": ({**single, "kind": "sweep", "optimizers": [{"name": "hf"}]}, "/batch_size"),
        "ablation": ({"kind": "ablation", "tasks": [single]}, "/tasks/0/batch_size"),
    }[kind]
    found, detail = _refused(client, request)
    assert found == pointer
    assert "layer_norm" in detail
    request = {**TRAIN, "batch_size": 1, "model": {"name": "mlp", "params": {"hidden": [4]}}}
    assert client.post("/v1/jobs", json=request).status_code == 201


def test_batch_norm_on_microbatches_of_one(client: TestClient) -> None:
    entry = {"name": "hf_lm", "grid": {"micro_batch": [4, 7]}}
    request = {**NORMALIZED, "kind": "sweep", "optimizers": [{"name": "sgd"}, entry]}
    pointer, detail = _refused(client, request)
    assert pointer == "/optimizers/1/grid/micro_batch/1"
    assert detail.startswith("7 cuts a batch of 8")


def test_bounds_of_the_damping_that_cross(client: TestClient) -> None:
    params = {"max_damping": 0.02}
    pointer, detail = _refused(client, {**TRAIN, "optimizer": {"name": "hf_lm", "params": params}})
    assert pointer == "/optimizer/params/max_damping"
    assert detail == "0.02 is below min_damping, which is 0.3"
