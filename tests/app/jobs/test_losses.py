"""Losses and targets of all kinds, as jobs: what fits is trained, what does not is refused."""

import io
import json
import re
import runpy
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient
from safetensors.torch import save

import mlhf
from tests.app.queue.worker import Service


def npz(**arrays):
    content = io.BytesIO()
    np.savez(content, **arrays)
    return content.getvalue()


def upload(client, content, format="npz", name="data.npz", **params):
    return client.post(
        "/v1/datasets",
        data={"name": "mine", "format": format, "params": json.dumps(params)},
        files={"file": (name, content)},
    )


def made(client, content, **params):
    answer = upload(client, content, **params)
    assert answer.status_code == 201, answer.text
    return answer.json()


def job(dataset, layers, loss=None, optimizer="mlhf", **fields):
    spec = {
        "kind": "train",
        "model": {"name": "sequential", "params": {"layers": layers}},
        "dataset": {"name": dataset},
        "optimizer": {"name": optimizer},
        "budget": {"steps": 3},
        "batch_size": 8,
        **fields,
    }
    return spec if loss is None else {**spec, "loss": loss}


def documented():
    """The jobs of docs/losses.md."""
    text = (Path(__file__).parents[3] / "docs" / "losses.md").read_text()
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", text, re.DOTALL)]


DENSE = [{"type": "linear", "out_features": 8}, {"type": "activation", "function": "tanh"}]
TABLE = [*DENSE, {"type": "linear"}]


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def refused(client, spec, pointer, words):
    answer = client.post("/v1/jobs?validate_only=true", json=spec)
    assert answer.status_code == 422, answer.text
    (error, *_) = answer.json()["errors"]
    assert error["pointer"] == pointer, answer.json()
    assert words in error["detail"], answer.json()


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_loss_that_does_not_fit_is_refused_where_it_stands(client: TestClient, rng) -> None:
    x = rng.normal(size=(40, 3))
    classes = made(client, npz(x=x, y=np.arange(40) % 3))["id"]
    numbers = made(client, npz(x=x, y=rng.normal(size=40)))["id"]
    assert client.get("/v1/losses/huber").json()["params_schema"]["properties"]["delta"]

    def loss(name, **params):
        return {"name": name, "params": params}

    for data, chosen, pointer, words in (
        (classes, loss("cross_entropi"), "/loss/name", "cross_entropy"),
        (classes, loss("huber"), "/loss/name", "not a loss for classification"),
        (classes, loss("cross_entropy", label_smoothing=1), "/loss/params/label_smoothing", "less"),
        (classes, loss("cross_entropy", smoothing=0.1), "/loss/params/smoothing", "smoothing"),
        (
            classes,
            loss("cross_entropy", class_weights=[1, 2]),
            "/loss/params/class_weights",
            "2 weights, but the data has 3 classes",
        ),
        (
            classes,
            loss("cross_entropy", class_weights=[0, 0, 0]),
            "/loss/params/class_weights",
            "above 0",
        ),
        (
            classes,
            loss("cross_entropy", ignore_index=255),
            "/loss/params/ignore_index",
            "255 is no class of the data, which has 0 to 2",
        ),
        (classes, loss("binary_cross_entropy"), "/loss/name", "3 classes"),
        (classes, loss("heads"), "/loss/name", "take cross_entropy"),
        (numbers, loss("poisson"), "/loss/name", "the least target is -"),
        (numbers, loss("quantile", quantiles=[1.5]), "/loss/params/quantiles/0", "less than 1"),
        (numbers, loss("huber", delta=0), "/loss/params/delta", "greater than 0"),
    ):
        refused(client, job(data, TABLE, chosen), pointer, words)
    valid = client.post("/v1/jobs?validate_only=true", json=documented()[0])
    assert valid.status_code == 200, valid.text
    text = job(classes, TABLE)
    text["loss"] = "huber"
    assert client.post("/v1/jobs", json=text).status_code == 422


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_heads_with_weights_padding_and_counts_are_trained_and_predict(
    client: TestClient, settings, database, storage, rng
) -> None:
    """One run by a worker, with what is hardest to carry along: heads, weights, padding."""
    tokens = rng.integers(1, 20, (30, 6))
    tags = tokens % 3
    tags[:, 4:] = -100
    content = npz(
        x=tokens, y_tag=tags, y_count=rng.poisson(2.0, 30).astype(float), w=rng.random(30)
    )
    data = made(client, content, inputs="tokens", ignore_index=-100, sample_weights="w")
    heads = data["info"]["heads"]
    assert heads["tag"]["positions"] == [6]
    assert heads["count"]["least"] >= 0
    layers = [
        {"type": "embedding", "dimension": 4},
        {"type": "flatten"},
        {"type": "linear"},
    ]
    loss = documented()[1]["loss"]
    created = client.post("/v1/jobs", json=job(data["id"], layers, loss))
    assert created.status_code == 201, created.text
    (run,) = created.json()["run_ids"]
    Service(settings, database, storage).work()
    found = client.get(f"/v1/runs/{run}").json()
    assert found["status"] == "succeeded", found["error"]
    assert {"test_loss", "test_tag_loss", "test_tag_accuracy", "test_count_loss"} <= set(
        found["summary"]
    )
    told = client.post(f"/v1/models/{run}/predict", json={"rows": tokens[:2].tolist()})
    assert told.status_code == 200, told.text
    (first, _) = told.json()["predictions"]
    assert len(first["tag"]) == 6
    assert first["count"][0] > 0, "a rate"
    wrong = {"name": "heads", "params": {"heads": {"tags": {}}}}
    refused(client, job(data["id"], layers, wrong), "/loss/params/heads/tags", "tag")
    wrong = {"name": "heads", "params": {"heads": {"tag": {"loss": {"name": "mse"}}}}}
    refused(client, job(data["id"], layers, wrong), "/loss/params/heads/tag/loss/name", "mse")


def drawn(folder, **changes):
    """The images of examples/detector.py, zipped as COCO stores them."""
    example = runpy.run_path(str(Path(__file__).parents[3] / "examples" / "detector.py"))
    example["write_data"](folder / "data", 40)
    described = json.loads((folder / "data" / "instances.json").read_text())
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for image in described["images"]:
            path = folder / "data" / "images" / image["file_name"]
            archive.write(path, f"shapes/images/{path.name}")
        archive.writestr("shapes/annotations.json", json.dumps({**described, **changes}))
    return example, content.getvalue()


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_detector_is_trained_on_an_upload_of_images_with_boxes(
    client: TestClient, settings, database, storage, tmp_path
) -> None:
    example, content = drawn(tmp_path)
    answer = upload(client, content, "coco", "shapes.zip")
    assert answer.status_code == 201, answer.text
    data = answer.json()
    assert data["info"]["task"] == "detection"
    assert data["info"]["class_names"] == ["square", "disc", "cross"]
    assert [each["name"] for each in data["report"]["classes"]] == ["square", "disc", "cross"]
    network = mlhf.trace(example["Detector"](8), torch.randn(2, 1, 32, 32))
    files = {
        "graph": ("network.json", json.dumps(network.to_json()).encode()),
        "weights": ("network.safetensors", save(network.weights)),
    }
    made = client.post("/v1/networks", data={"name": "detector"}, files=files)
    assert made.status_code == 201, made.text
    model = {"name": "graph", "params": {"network": made.json()["id"]}}
    spec = {**job(data["id"], []), "model": model, "batch_size": 16, "budget": {"steps": 6}}
    spec["target"] = {"metric": "test_average_precision", "value": 0.99}
    refused(client, {**spec, "optimizer": {"name": "kfac"}}, "/optimizer/name", "one output")
    refused(
        client,
        {**spec, "dataset": {"name": "digits"}, "target": None},
        "/model/params/network",
        "the network takes samples of shape (1, 32, 32)",
    )
    refused(client, {**spec, "model": {"name": "mlp"}}, "/model/name", "a detector")
    none = dict.fromkeys(
        ("objectness_weight", "anchor_box_weight", "class_weight", "box_weight"), 0
    )
    for params, words in ((none, "above 0"), ({"negative": 0.9}, "must not be above positive")):
        wrong = {**spec, "loss": {"name": "detection", "params": params}}
        refused(client, wrong, "/loss/params", words)
    created = client.post("/v1/jobs", json=spec)
    assert created.status_code == 201, created.text
    (run,) = created.json()["run_ids"]
    Service(settings, database, storage).work()
    found = client.get(f"/v1/runs/{run}").json()
    assert found["status"] == "succeeded", found["error"]
    assert 0 < found["summary"]["test_average_precision"]["last"] <= 1
    pixels = [[[0.0] * 32 for _ in range(32)]]
    told = client.post(f"/v1/models/{run}/predict", json={"rows": [pixels]})
    assert told.status_code == 200, told.text
    (prediction,) = told.json()["predictions"]
    assert set(prediction) == {"boxes", "scores", "labels"}


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_odd_images_with_boxes_are_refused(client: TestClient, tmp_path) -> None:
    _, content = drawn(
        tmp_path, annotations=[{"image_id": 0, "category_id": 0, "bbox": [99, 9, 5, 5]}]
    )
    answer = upload(client, content, "coco", "shapes.zip")
    assert answer.status_code == 422
    assert "outside of the image of 32×32" in answer.json()["detail"]
    answer = upload(client, content[:-100], "coco", "shapes.zip")
    assert answer.status_code == 422
    answer = upload(client, content, "coco", "shapes.zip", annotations="other.json")
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"] == "/params/annotations"
