"""What holds for every request."""

import errno

import pytest
from fastapi.testclient import TestClient


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "[::1", "::1", "www.localhost"]
)
def test_other_hosts_are_refused(client: TestClient, host: str) -> None:
    response = client.get("/v1/jobs", headers={"Host": host})
    assert response.status_code == 403
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost:1", "LocalHost", "[::1]", "[::1]:8000"]
)
def test_this_machine_is_served(client: TestClient, host: str) -> None:
    assert client.get("/v1/jobs", headers={"Host": host}).status_code == 200


def test_other_origins_are_refused(client: TestClient) -> None:
    for origin in ("https://evil.example", "null", "http://127.0.0.1:9"):
        response = client.post("/v1/jobs", json={}, headers={"Origin": origin})
        assert response.status_code == 403
    own = client.post("/v1/jobs", json={}, headers={"Origin": "http://127.0.0.1"})
    assert own.status_code == 422


def test_safe_headers_are_on_everything(client: TestClient) -> None:
    for path in ("/v1/jobs", "/v1/nothing", "/v1/jobs/job_0"):
        headers = client.get(path).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert "default-src 'self'" in headers["content-security-policy"]


def test_what_is_not_there_is_a_problem(client: TestClient) -> None:
    response = client.get("/v1/nothing")
    assert response.status_code == 404
    assert response.headers["content-type"] == "application/problem+json"
    assert client.delete("/v1/jobs").status_code == 405


def test_a_full_disk_is_said(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("mlhf_service.jobs.service.create", full)
    spec = {
        "kind": "train",
        "model": {"name": "mlp"},
        "dataset": {"name": "digits"},
        "optimizer": {"name": "adam"},
        "budget": {"epochs": 1},
    }
    response = client.post("/v1/jobs", json=spec)
    assert response.status_code == 507
    assert "full" in response.json()["detail"]
