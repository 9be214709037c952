"""Networks over HTTP: what is uploaded is checked, named by jobs, and deleted."""

import json

import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import load_file, save

import mlhf
from tests.app.queue.worker import Service
from tests.engine.models.graph.networks import Vision


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return mlhf.trace(Vision(), torch.randn(2, 1, 8, 8))


def upload(client, graph, weights=None):
    content = graph if isinstance(graph, bytes) else json.dumps(graph).encode()
    files = {"graph": ("network.json", content)}
    if weights is not None:
        files["weights"] = ("network.safetensors", weights)
    return client.post("/v1/networks", data={"name": "mine"}, files=files)


def job(identity, optimizer="adam", **params):
    return {
        "kind": "train",
        "model": {"name": "graph", "params": {"network": identity, **params}},
        "dataset": {"name": "digits", "params": {"train_samples": 100, "test_samples": 20}},
        "optimizer": {"name": optimizer},
        "budget": {"steps": 3},
    }


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_an_uploaded_network_is_trained_and_goes_back_into_its_class(
    client: TestClient, network, settings, database, storage, tmp_path
) -> None:
    made = upload(client, network.to_json(), save(network.weights))
    assert made.status_code == 201, made.text
    shown = made.json()
    assert shown["inputs"] == [{"name": "image", "shape": [1, 8, 8], "dtype": "float32"}]
    assert shown["parameters"] > 1000
    assert client.get("/v1/networks").json()["data"] == [shown]
    graph = client.get(f"/v1/networks/{shown['id']}/graph").json()
    assert graph == network.to_json()
    told = client.post("/v1/jobs?validate_only=true", json=job(shown["id"])).json()
    assert told["parameters"] == shown["parameters"]

    created = client.post("/v1/jobs", json=job(shown["id"], "mlhf"))
    assert created.status_code == 201, created.text
    (run,) = created.json()["run_ids"]
    Service(settings, database, storage).work()
    found = client.get(f"/v1/runs/{run}").json()
    assert found["status"] == "succeeded", found["error"]
    path = tmp_path / "model.safetensors"
    path.write_bytes(client.get(f"/v1/runs/{run}/artifacts/model.safetensors").content)
    Vision().load_state_dict(load_file(path))

    gone = f"/v1/networks/{shown['id']}"
    refused = client.delete(gone)
    assert refused.status_code == 409
    assert "trained it" in refused.json()["detail"]
    assert client.delete(gone, params={"force": True}).status_code == 204
    assert client.get(gone).status_code == 404
    assert client.post("/v1/jobs", json=job(shown["id"])).status_code == 422


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_is_wrong_is_refused_where_it_stands(client: TestClient, network) -> None:
    described = network.to_json()
    wrong = json.loads(json.dumps(described))
    wrong["nodes"][2]["op"] = "os.system"
    wrong["nodes"][2].pop("layer", None)
    answer = upload(client, wrong)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/graph/nodes/2")
    weights = {**network.weights, "head.bias": torch.full((10,), torch.nan)}
    answer = upload(client, described, save(weights))
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/weights"
    more = {**network.weights, "more": torch.zeros(300_000)}  # beyond what a job's body may be
    assert upload(client, described, save(more)).status_code == 422


def test_a_job_names_a_network_and_never_a_file(client: TestClient) -> None:
    for identity in ("net_0", "/etc/passwd", "../network.json"):
        answer = client.post("/v1/jobs", json=job(identity))
        assert answer.status_code == 422
        assert answer.json()["errors"][0]["pointer"] == "/model/params/network"
    inline = job("net_0")
    inline["model"]["params"] = {
        "graph": {"inputs": [{"name": "x", "shape": [3]}], "nodes": [], "outputs": "%x"}
    }
    answer = client.post("/v1/jobs", json=inline)
    assert answer.status_code == 422
    assert "POST /v1/networks" in answer.json()["detail"]
