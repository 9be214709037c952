"""Comparisons over HTTP, with numbers computed by hand."""

import csv
import io
import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

TARGET = {"metric": "train_loss", "value": 0.5}


@pytest.fixture
def job(rows: Any) -> str:
    """Adam on two seeds, both reaching 0.5; HF on two, of which one misses it."""
    job = rows.job()
    curves = [
        ("adam", 0, {0: 4.0, 10: 1.0, 20: 0.5, 30: 0.4}, 1.0),
        ("adam", 1, {0: 2.0, 10: 0.5, 20: 0.3, 30: 0.6}, 1.0),
        ("hf", 0, {0: 4.0, 10: 0.2, 20: 0.1, 30: 0.1}, 4.0),
        ("hf", 1, {0: 4.0, 10: 0.9, 20: 0.8, 30: math.nan}, 4.0),
    ]
    for position, (optimizer, seed, values, seconds) in enumerate(curves):
        run = rows.run(
            job,
            position=position,
            optimizer=optimizer,
            name=f"=cmd {optimizer}",
            config={"seed": seed, "target": TARGET},
        )
        rows.points(run, "train_loss", values, seconds)
        rows.points(run, "test_accuracy", {0: 0.1, 30: 0.9 + seed / 100}, seconds)
    return str(job)


def _get(client: TestClient, **params: Any) -> Any:
    response = client.get("/v1/comparisons", params=params)
    assert response.status_code == 200, response.text
    return response.json()


def test_runs_by_hand(client: TestClient, job: str) -> None:
    body = _get(client, job=job)
    assert (body["metric"], body["target"]) == ("train_loss", 0.5)
    a0, a1, h0, h1 = body["runs"]
    assert a0["to_target"] == {"step": 20, "samples": 200, "epoch": 2.0, "wall_seconds": 20.0}
    assert a1["to_target"]["step"] == 10
    assert h0["to_target"] == {"step": 10, "samples": 100, "epoch": 1.0, "wall_seconds": 40.0}
    assert h1["to_target"] is None
    assert (a1["final_loss"], a1["best_loss"]) == (0.6, 0.3)
    assert (h1["final_loss"], h1["best_loss"]) == ("NaN", 0.8)
    assert (a1["final_accuracy"], a1["best_accuracy"]) == (0.91, 0.91)
    assert a0["ratio_to_best"] == {
        "final_loss": pytest.approx(4.0),
        "best_loss": pytest.approx(4.0),
        "final_accuracy": pytest.approx(0.9 / 0.91),
        "best_accuracy": pytest.approx(0.9 / 0.91),
        "steps": 2.0,
        "samples": 2.0,
        "wall_seconds": 2.0,
    }
    assert h0["ratio_to_best"]["final_loss"] == 1.0
    assert h0["ratio_to_best"]["wall_seconds"] == 4.0
    assert h1["ratio_to_best"]["samples"] is None
    assert h1["ratio_to_best"]["final_loss"] is None


def test_groups_by_hand(client: TestClient, job: str) -> None:
    adam, hf = _get(client, job=job)["groups"]
    assert (adam["label"], adam["n"], adam["seeds"]) == ("adam", 2, [0, 1])
    assert adam["final_loss"] == {
        "n": 2,
        "missing": 0,
        "mean": 0.5,
        "std": pytest.approx(math.sqrt(0.02)),
        "min": 0.4,
        "max": 0.6,
    }
    assert adam["to_target"]["missed"] == 0
    assert adam["to_target"]["samples"]["mean"] == 150
    assert adam["to_target"]["wall_seconds"]["mean"] == 15
    assert adam["curve"]["mean"] == [3.0, 0.75, 0.4, 0.5]
    assert adam["curve"]["samples"] == [0, 100, 200, 300]

    assert hf["to_target"]["missed"] == 1
    assert hf["to_target"]["samples"]["mean"] is None
    assert hf["to_target"]["samples"]["min"] == 100
    assert (hf["final_loss"]["missing"], hf["final_loss"]["mean"]) == (1, None)
    assert hf["best_loss"]["mean"] == pytest.approx(0.45)
    assert hf["curve"]["mean"][3] is None


def test_a_target_and_metric_of_ones_own(client: TestClient, job: str) -> None:
    body = _get(client, job=job, target=0.3)
    assert [r["to_target"] and r["to_target"]["step"] for r in body["runs"]] == [None, 20, 10, None]
    body = _get(client, job=job, metric="test_accuracy", target=0.905)
    assert [r["to_target"] and r["to_target"]["step"] for r in body["runs"]] == [None, 30, None, 30]
    assert [r["ratio_to_best"]["final_accuracy"] for r in body["runs"]][1] == 1.0
    body = _get(client, job=job, metric="test_accuracy")
    assert body["target"] is None  # the common target is one of another metric
    assert body["groups"][0]["to_target"] is None


def test_the_common_target_is_used_only_if_common(client: TestClient, rows: Any, job: str) -> None:
    ids = [run["run_id"] for run in _get(client, job=job)["runs"]]
    assert _get(client, run=ids[:2])["target"] == 0.5
    assert _get(client, run=[ids[0], rows.run()])["target"] is None


def test_csv(client: TestClient, job: str) -> None:
    response = client.get("/v1/comparisons", params={"job": job, "format": "csv"})
    assert response.headers["content-type"].startswith("text/csv")
    table = list(csv.DictReader(io.StringIO(response.text)))
    assert [row["samples_to_target"] for row in table] == ["200", "100", "100", ""]
    assert [row["seconds_to_target"] for row in table] == ["20.0", "10.0", "40.0", ""]
    assert table[3]["final_loss"] == "NaN"
    assert table[0]["name"] == "'=cmd adam"
    assert table[0]["samples_ratio"] == "2.0"


def _codes(body: Any) -> list[str]:
    return [warning["code"] for warning in body["warnings"]]


def test_like_runs_give_no_warnings(client: TestClient, rows: Any) -> None:
    job = rows.job()
    for position in range(4):
        run = rows.run(
            job,
            position=position,
            optimizer=("adam", "hf")[position // 2],
            config={"seed": position % 2},
            environment={"device_name": "cpu A", "threads": 1, "data_digest": "aa"},
        )
        rows.points(run, "train_loss", {0: 1.0})
    assert _codes(_get(client, job=job)) == []


@pytest.mark.parametrize(
    ("code", "fields"),
    [
        ("hardware", {"environment": {"device_name": "cpu B", "threads": 1, "data_digest": "aa"}}),
        ("threads", {"environment": {"device_name": "cpu A", "threads": 2, "data_digest": "aa"}}),
        ("data", {"environment": {"device_name": "cpu A", "threads": 1, "data_digest": "bb"}}),
        ("data", {"config": {"dataset": {"name": "cifar10", "params": {}}}}),
        ("batch_size", {"config": {"batch_size": 32}}),
        ("model", {"config": {"model": {"name": "mlp", "params": {"hidden": [33]}}}}),
        ("budget", {"config": {"budget": {"epochs": 2.0}}}),
        ("seeds", {"config": {"seed": 7}, "optimizer": "hf"}),
        ("unfinished", {"status": "running"}),
        ("unfinished", {"status": "cancelled"}),
        ("diverged", {"status": "failed", "error": {"type": "/problems/diverged"}}),
    ],
)
def test_warnings(client: TestClient, rows: Any, code: str, fields: dict[str, Any]) -> None:
    environment = {"device_name": "cpu A", "threads": 1, "data_digest": "aa"}
    runs = [rows.run(environment=environment), rows.run(**{"environment": environment, **fields})]
    for run in runs:
        rows.points(run, "train_loss", {0: 1.0})
    body = _get(client, run=runs)
    assert code in _codes(body)
    warning = body["warnings"][_codes(body).index(code)]
    assert warning["run_ids"] == [runs[1]]
    assert warning["message"].endswith(".")


def test_a_run_that_measured_nothing(client: TestClient, rows: Any) -> None:
    runs = [rows.run(status="queued"), rows.run()]
    rows.points(runs[1], "train_loss", {0: 0.0})
    body = _get(client, run=runs, target=1)
    assert "not_measured" in _codes(body)
    assert body["runs"][0]["final_loss"] is None
    assert body["runs"][1]["ratio_to_best"]["final_loss"] is None  # 0 / 0
    for form in ("png", "svg", "csv"):
        assert client.get("/v1/comparisons", params={"run": runs, "format": form}).is_success


@pytest.mark.parametrize("x", [None, "samples", "steps", "epochs", "wall_seconds"])
def test_pictures(client: TestClient, job: str, x: str | None) -> None:
    params = {"job": job, "format": "png", **({"x": x} if x else {})}
    response = client.get("/v1/comparisons", params=params)
    assert response.headers["content-type"] == "image/png"
    assert response.content.startswith(b"\x89PNG")
    etag = response.headers["etag"]
    again = client.get("/v1/comparisons", params=params, headers={"If-None-Match": etag})
    assert again.status_code == 304


def test_the_svg_has_labels_but_no_script(client: TestClient, rows: Any, job: str) -> None:
    response = client.get("/v1/comparisons", params={"job": job, "format": "svg"})
    assert response.headers["content-type"].startswith("image/svg+xml")
    assert response.headers["content-disposition"].startswith("attachment")
    assert "training time (s)" in response.text
    assert "adam (2 seeds)" in response.text
    assert "target 0.5" in response.text
    assert "<script" not in response.text


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({}, 422),
        ({"run": ["run_1"]}, 422),
        ({"run": ["run_1", "run_1"]}, 422),
        ({"run": ["run_1", "run_2"]}, 404),
        ({"run": [f"run_{i}" for i in range(65)]}, 422),
        ({"job": "job_1"}, 404),
        ({"job": "a\0"}, 422),
        ({"run": ["a\0", "b"]}, 422),
        ({"job": "job_1", "metric": "batch_loss"}, 422),
        ({"job": "job_1", "target": "nan"}, 422),
        ({"job": "job_1", "target": "1e999"}, 422),
        ({"job": "job_1", "format": "pdf"}, 422),
        ({"job": "job_1", "x": "time"}, 422),
    ],
)
# One database is enough for what is refused.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_bad_requests(client: TestClient, params: dict[str, Any], status: int) -> None:
    response = client.get("/v1/comparisons", params=params)
    assert response.status_code == status
    assert response.json()["errors"][0]["pointer"] == list(params or ["run"])[-1]
