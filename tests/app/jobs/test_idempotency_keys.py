"""A key makes one job, however often and from how many sides it is sent."""

import threading
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.jobs.models import Job
from tests.app.jobs.test_endpoints import SPEC, rows


def test_an_idempotency_key_makes_one_job(client: TestClient, database: Database) -> None:
    headers = {"Idempotency-Key": "k-1"}
    first = client.post("/v1/jobs", json=SPEC, headers=headers)
    again = client.post("/v1/jobs", json=SPEC, headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    other = client.post("/v1/jobs", json={**SPEC, "seed": 4}, headers=headers)
    assert other.status_code == 422
    assert len(rows(database, Job)) == 1


def test_an_idempotency_key_makes_one_copy(client: TestClient, database: Database) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    client.post(f"/v1/jobs/{job_id}/cancel")
    for action, body in (("retry", None), ("clone", {"changes": {"seed": 7}})):
        path, headers = f"/v1/jobs/{job_id}/{action}", {"Idempotency-Key": f"k-{action}"}
        first = client.post(path, json=body, headers=headers)
        again = client.post(path, json=body, headers=headers)
        assert (first.status_code, again.status_code) == (201, 200)
        assert again.json()["id"] == first.json()["id"]
        assert again.headers["Location"] == first.headers["Location"]
    assert len(rows(database, Job)) == 3
    other = client.post(
        f"/v1/jobs/{job_id}/clone", json={"changes": {}}, headers={"Idempotency-Key": "k-clone"}
    )
    assert other.status_code == 422


def test_a_key_whose_request_failed_can_be_used_again(client: TestClient) -> None:
    headers = {"Idempotency-Key": "k-2"}
    bad = client.post("/v1/jobs", json={**SPEC, "model": {"name": "x"}}, headers=headers)
    assert bad.status_code == 422
    good = client.post("/v1/jobs", json=SPEC, headers=headers)
    assert good.status_code == 201


def test_a_key_in_flight_is_a_conflict(client: TestClient, database: Database) -> None:
    from mlhf_service.jobs.idempotency import request_hash, reserve

    assert reserve(database, "k-3", request_hash(SPEC)) is None
    response = client.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "k-3"})
    assert response.status_code == 409
    assert response.headers["retry-after"] == "1"


def test_a_key_is_known_after_an_upgrade(
    client: TestClient, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another version makes of the same document does not count."""
    from mlhf_service.jobs.idempotency import IdempotencyKey, request_hash
    from mlhf_service.jobs.kinds.train import TrainRequest

    headers = {"Idempotency-Key": "k-5"}
    first = client.post("/v1/jobs", json=SPEC, headers=headers)
    dumped = TrainRequest.model_dump

    def with_a_new_field(self: TrainRequest, **options: Any) -> dict[str, Any]:
        return {**dumped(self, **options), "new": 1}

    with monkeypatch.context() as patch:
        patch.setattr(TrainRequest, "model_dump", with_a_new_field)
        again = client.post("/v1/jobs", json=dict(reversed(SPEC.items())), headers=headers)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    with database.write() as session:  # as versions before wrote it
        hashed = request_hash(TrainRequest.model_validate(SPEC).model_dump(mode="json"))
        session.query(IdempotencyKey).update({"request_hash": hashed})
    assert client.post("/v1/jobs", json=SPEC, headers=headers).status_code == 200
    other = client.post("/v1/jobs", json={**SPEC, "seed": 5}, headers=headers)
    assert other.status_code == 422


def test_one_key_from_many_sides_makes_one_job(client: TestClient, database: Database) -> None:
    results: list[int] = []

    def post() -> None:
        response = client.post("/v1/jobs", json=SPEC, headers={"Idempotency-Key": "k-4"})
        results.append(response.status_code)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results.count(201) == 1
    assert set(results) <= {201, 200, 409}
    assert len(rows(database, Job)) == 1
