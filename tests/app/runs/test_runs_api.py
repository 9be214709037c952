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
        ({"sort": "seed"}, 422),
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
        "reached": {"step": 4, "samples": 40, "epoch": 0.4, "wall_seconds": 2.0},
    }


def test_a_target_of_accuracy_is_reached_from_below(client: TestClient, rows: Any) -> None:
    target = {"metric": "test_accuracy", "value": 0.9}
    hit, missed = rows.run(config={"target": target}), rows.run(config={"target": target})
    rows.points(hit, "test_accuracy", {0: 0.1, 1: 0.9, 2: 0.8})
    rows.points(missed, "test_accuracy", {0: float("inf"), 1: 0.89})
    assert client.get(f"/v1/runs/{hit}").json()["target"]["reached"]["step"] == 1
    assert client.get(f"/v1/runs/{missed}").json()["target"]["reached"] is None


@pytest.mark.parametrize("path", ["nope", "run_0", "run_%00", "%F0%9F%98%80", "run_" + "0" * 36])
@pytest.mark.parametrize("rest", ["", "/curves", "/artifacts", "/artifacts/model.json"])
def test_unknown_runs_are_404(client: TestClient, path: str, rest: str) -> None:
    response = client.get(f"/v1/runs/{path}{rest}")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
