"""Runs over HTTP: lists, filters, one run with its target."""

from typing import Any

import pytest
from fastapi.testclient import TestClient


def _ids(client: TestClient, **params: Any) -> list[str]:
    response = client.get("/v1/runs", params=params)
    assert response.status_code == 200, response.text
    return [run["id"] for run in response.json()["data"]]


def test_filters_and_sorts(client: TestClient, rows: Any) -> None:
    job = rows.job()
    adam = rows.run(job, optimizer="adam", name="zebra: adam", position=0)
    hf = rows.run(job, optimizer="hf", name="100% ape: hf", position=1, status="running")
    other = rows.run(optimizer="adam", name="Lion", dataset="cifar10")

    assert _ids(client) == [other, hf, adam]
    assert _ids(client, sort="created_at") == [adam, hf, other]
    assert _ids(client, sort="-name") == [adam, other, hf]
    assert _ids(client, job_id=job, sort="created_at") == [adam, hf]
    assert _ids(client, optimizer="adam", job_id=job) == [adam]
    assert _ids(client, status=["running", "failed"]) == [hf]
    assert _ids(client, dataset="cifar10") == [other]
    assert _ids(client, model="resnet") == []
    assert _ids(client, q="ZEBRA") == [adam]
    assert _ids(client, q="%") == [hf]  # no wildcard


def test_pages_hold_every_run_once(client: TestClient, rows: Any) -> None:
    job = rows.job()
    made = [rows.run(job, position=i, name=f"same {i % 2}") for i in range(7)]
    for sort in ("-created_at", "name", "-status"):
        seen: list[str] = []
        cursor = None
        while True:
            params = {"sort": sort, "limit": 3, **({"cursor": cursor} if cursor else {})}
            page = client.get("/v1/runs", params=params).json()
            seen += [run["id"] for run in page["data"]]
            cursor = page["next_cursor"]
            if cursor is None:
                break
        assert sorted(seen) == made
        assert len(seen) == 7


@pytest.mark.parametrize(
    ("params", "status"),
    [
        ({"status": "done"}, 422),
        ({"sort": "sede"}, 422),
        ({"limit": 0}, 422),
        ({"limit": 10**30}, 422),
        ({"q": "a\0b"}, 422),
        ({"job_id": "\0"}, 422),
        ({"cursor": "nonsense"}, 400),
    ],
)
def test_bad_queries_are_problems(client: TestClient, params: dict[str, Any], status: int) -> None:
    response = client.get("/v1/runs", params=params)
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    assert response.json()["errors"][0]["pointer"] == next(iter(params))


def test_one_run_tells_all(client: TestClient, rows: Any) -> None:
    summary = {"train_loss": {"last": "NaN", "best": 0.25, "best_step": 4}}
    run = rows.run(
        config={"target": {"metric": "train_loss", "value": 0.5, "stop": False}},
        environment={"device": "cpu", "threads": 1, "data_digest": "ab" * 32},
        data_info={"kind": "image", "input_shape": [1, 8, 8]},
        totals={"steps": 8, "wall_seconds": 4.0},
        summary=summary,
        attempt=2,
    )
    rows.points(run, "train_loss", {0: 2.0, 2: 0.6, 4: 0.25, 6: 0.4, 8: float("nan")})
    rows.points(run, "test_loss", {0: 0.1})

    body = client.get(f"/v1/runs/{run}").json()
    assert body["attempts"] == 2
    assert body["config"]["optimizer"] == {"name": "adam", "params": {}}
    assert body["environment"]["threads"] == 1
    assert body["data"]["input_shape"] == [1, 8, 8]
    assert body["summary"] == summary
    assert body["totals"]["wall_seconds"] == 4.0
    assert body["metrics"] == ["test_loss", "train_loss"]
    assert body["target"] == {
        "metric": "train_loss",
        "value": 0.5,
        "status": "reached",
        "reached": {
            "step": 4,
            "samples": 40,
            "epoch": 0.4,
            "wall_seconds": 2.0,
            "cpu_seconds": None,
        },
    }


def test_a_target_of_accuracy_is_reached_from_below(client: TestClient, rows: Any) -> None:
    target = {"metric": "test_accuracy", "value": 0.9}
    hit, missed = rows.run(config={"target": target}), rows.run(config={"target": target})
    rows.points(hit, "test_accuracy", {0: 0.1, 1: 0.9, 2: 0.8})
    rows.points(missed, "test_accuracy", {0: float("inf"), 1: 0.89})
    assert client.get(f"/v1/runs/{hit}").json()["target"]["reached"]["step"] == 1
    assert client.get(f"/v1/runs/{missed}").json()["target"]["reached"] is None


@pytest.mark.parametrize(
    ("status", "error", "found"),
    [
        ("queued", None, "unfinished"),
        ("running", None, "unfinished"),
        ("paused", None, "unfinished"),
        ("cancelled", None, "unfinished"),
        ("failed", "/problems/lost", "unfinished"),
        ("failed", "/problems/diverged", "missed"),
        ("succeeded", None, "missed"),
    ],
)
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_only_a_run_that_ended_of_itself_has_missed_its_target(
    client: TestClient, rows: Any, status: str, error: str | None, found: str
) -> None:
    target = {"metric": "train_loss", "value": 0.1}
    run = rows.run(status=status, error=error and {"type": error}, config={"target": target})
    rows.points(run, "train_loss", {0: 1.0})
    assert client.get(f"/v1/runs/{run}").json()["target"]["status"] == found


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_target_that_a_run_does_not_measure_is_not_missed(client: TestClient, rows: Any) -> None:
    run = rows.run(config={"target": {"metric": "test_accuracy", "value": 0.9}})
    assert client.get(f"/v1/runs/{run}").json()["target"]["status"] == "not_measured"


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_run_that_diverged_counts_to_where_it_did(client: TestClient, rows: Any) -> None:
    totals = {"steps": 10, "samples": 640, "epochs": 0.4, "wall_seconds": 1.0, "cpu_seconds": 2.0}
    run = rows.run(
        status="failed",
        error={"type": "/problems/diverged"},
        totals=totals,
        progress={"step": 10, "total_steps": 40, "fraction": 0.25},
    )
    body = client.get(f"/v1/runs/{run}").json()
    assert body["diverged_at"] == {
        "step": 10,
        "samples": 640,
        "epoch": 0.4,
        "wall_seconds": 1.0,
        "cpu_seconds": 2.0,
    }
    assert body["progress"]["fraction"] == 0.25
    stopped_by_target = rows.run(progress={"step": 10, "total_steps": 40, "fraction": 0.25})
    body = client.get(f"/v1/runs/{stopped_by_target}").json()
    assert body["progress"]["fraction"] == 1.0
    assert body["diverged_at"] is None


@pytest.mark.parametrize("path", ["nope", "run_0", "run_%00", "%F0%9F%98%80", "run_" + "0" * 36])
@pytest.mark.parametrize("rest", ["", "/curves", "/artifacts", "/artifacts/model.json"])
def test_unknown_runs_are_404(client: TestClient, path: str, rest: str) -> None:
    response = client.get(f"/v1/runs/{path}{rest}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
