"""Runs that are trained elsewhere: each batch written once, and their end."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.queue.sweeper import Sweeper, expire_leases, void_leases
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings


def begin(client: TestClient, **fields: Any) -> dict[str, Any]:
    made = client.post("/v1/runs", json={"optimizer": "sgd", "model": "own", **fields})
    assert made.status_code == 201, made.text
    run: dict[str, Any] = made.json()
    return run


def point(step: int, value: Any, metric: str = "train_loss") -> dict[str, Any]:
    place = {"step": step, "samples": 10 * step, "wall_seconds": 0.5 * step}
    return {**place, "values": {metric: value}}


def send(client: TestClient, run: dict[str, Any], sequence: int, *points: Any) -> Any:
    body = {"sequence": sequence, "points": list(points)}
    return client.post(f"/v1/runs/{run['id']}/points", json=body)


def values(client: TestClient, run: dict[str, Any]) -> list[Any]:
    answer = client.get(f"/v1/runs/{run['id']}/curves").json()
    return [value for one in answer["series"] for _, value in one["points"]]


def end(client: TestClient, run: dict[str, Any], status: str = "succeeded", **more: Any) -> Any:
    return client.post(f"/v1/runs/{run['id']}/finish", json={"status": status, **more})


def test_a_logged_run_stands_in_lists_and_comparisons(client: TestClient) -> None:
    runs = [
        begin(client, seed=seed, project="mine", environment={"device_name": "elsewhere"})
        for seed in (0, 1)
    ]
    for run in runs:
        assert run["status"] == "running"
        assert send(client, run, 1, point(1, 1.0), point(2, 0.25)).json()["sequence"] == 1
        assert end(client, run).json()["status"] == "succeeded"
    listed = client.get("/v1/runs", params={"optimizer": "sgd"}).json()["data"]
    assert {run["id"] for run in listed} == {run["id"] for run in runs}
    assert listed[0]["summary"]["train_loss"]["best"] == 0.25
    assert listed[0]["totals"]["samples"] == 20
    (job,) = {client.get(f"/v1/jobs/{run['job_id']}").json()["project"] for run in runs}
    assert job == "mine"
    both = {"run": [run["id"] for run in runs]}
    compared = client.get("/v1/comparisons", params=both).json()
    assert [(group["label"], group["n"]) for group in compared["groups"]] == [("sgd", 2)]
    for page in (f"/runs/{runs[0]['id']}", f"/jobs/{runs[0]['job_id']}", "/"):
        assert client.get(page).status_code == 200


def test_a_batch_is_written_once(client: TestClient) -> None:
    run = begin(client)
    for _ in range(3):
        assert send(client, run, 1, point(1, 1.0)).json()["sequence"] == 1
    assert send(client, run, 2, point(2, 0.5)).status_code == 200
    assert send(client, run, 1, point(3, 9.0)).status_code == 200
    assert values(client, run) == [1.0, 0.5]
    skipped = send(client, run, 4, point(4, 0.1))
    assert skipped.status_code == 409
    assert "3 is missing" in skipped.json()["detail"]


def test_a_run_that_is_made_again_with_its_key_is_the_same(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k"}
    ids = [client.post("/v1/runs", json={}, headers=headers).json()["id"] for _ in range(2)]
    assert ids[0] == ids[1]
    assert client.post("/v1/runs", json={"seed": 1}, headers=headers).status_code == 422


def test_what_is_not_finite_is_kept(client: TestClient) -> None:
    run = begin(client)
    send(client, run, 1, point(1, 2.0), point(2, "NaN"))
    assert values(client, run) == [2.0, "NaN"]


@pytest.mark.parametrize(
    ("points", "pointer"),
    [
        ([point(2, 1.0), point(1, 1.0)], "/points"),
        ([point(1, 1.0, "Loss/train")], "/points/0/values/Loss~1train/[key]"),
        ([point(1, "much")], "/points/0/values/train_loss"),
        ([{"step": 1, "samples": 1, "wall_seconds": 0, "values": {}}], "/points/0/values"),
        ([point(-1, 1.0)], "/points/0/step"),
    ],
)
def test_a_wrong_batch_is_refused_whole(client: TestClient, points: Any, pointer: str) -> None:
    run = begin(client)
    answer = send(client, run, 1, *points)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith(pointer)
    assert values(client, run) == []


def test_points_without_a_number_are_refused(client: TestClient) -> None:
    assert send(client, begin(client), 0, point(1, 1.0)).status_code == 422


def test_an_end_is_final(client: TestClient) -> None:
    run = begin(client)
    failed = end(client, run, "failed", error="out of memory").json()
    assert failed["error"]["detail"] == "out of memory"
    assert end(client, run, "failed").status_code == 200
    assert end(client, run).status_code == 409
    refused = send(client, run, 1, point(1, 1.0))
    assert (refused.status_code, "already failed" in refused.json()["detail"]) == (409, True)


def test_cancelling_ends_it_at_once(client: TestClient) -> None:
    run = begin(client)
    send(client, run, 1, point(1, 1.0))
    assert client.post(f"/v1/jobs/{run['job_id']}/cancel").json()["status"] == "cancelled"
    assert send(client, run, 1, point(1, 1.0)).json()["status"] == "cancelled"


@pytest.mark.parametrize("action", ["pause", "retry", "clone"])
def test_what_needs_a_trainer_is_refused(client: TestClient, action: str) -> None:
    run = begin(client)
    if action != "pause":
        end(client, run, "failed")
    answer = client.post(f"/v1/jobs/{run['job_id']}/{action}")
    assert (answer.status_code, "trained elsewhere" in answer.json()["detail"]) == (409, True)


def test_a_run_of_the_service_takes_no_points(client: TestClient, rows: Any) -> None:
    run = rows.run(rows.job())
    assert client.post(f"/v1/runs/{run}/points", json={"sequence": 0}).status_code == 409
    assert client.post("/v1/runs/run_absent/points", json={"sequence": 0}).status_code == 404


def run_out(database: Database, run: dict[str, Any]) -> None:
    with database.write() as session:
        session.get_one(Run, run["id"]).lease_expires_at = 1.0


def test_a_silent_logger_s_run_fails(
    client: TestClient, database: Database, settings: Settings
) -> None:
    run = begin(client)
    expire_leases(database, 5, of_loggers=True)
    assert client.get(f"/v1/runs/{run['id']}").json()["status"] == "running"
    run_out(database, run)
    assert void_leases(database) == 0  # a supervisor that starts knows nothing of loggers
    assert expire_leases(database, 5) == 0
    Sweeper(settings, database, expire_at_once=True).sweep()  # the service has just come back
    assert client.get(f"/v1/runs/{run['id']}").json()["status"] == "running"
    assert expire_leases(database, 5, of_loggers=True) == 1
    ended = client.get(f"/v1/runs/{run['id']}").json()
    assert (ended["status"], ended["error"]["type"]) == ("failed", "/problems/lost")
    assert "fell silent" in ended["error"]["detail"]


def test_a_sign_of_life_renews_the_lease(client: TestClient, database: Database) -> None:
    run = begin(client)
    run_out(database, run)
    assert send(client, run, 0).json()["status"] == "running"
    assert expire_leases(database, 5, of_loggers=True) == 0


def test_its_long_lease_is_no_sign_of_a_clock_that_was_set_back(
    client: TestClient, database: Database
) -> None:
    from mlhf_service.queue.clock import shorten_waits

    begin(client)
    assert shorten_waits(database, 1.0) == 0


def test_it_has_no_place_in_the_queue(client: TestClient) -> None:
    begin(client)
    assert client.get("/v1/queue").json()["data"] == []
