"""OPTIONS and HEAD on every route, and what a 405 says is allowed."""

import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import Rows


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        ("/v1/jobs", "GET, HEAD, OPTIONS, POST"),
        ("/v1/datasets/x", "DELETE, GET, HEAD, OPTIONS"),
        ("/v1/jobs/job_x/cancel", "OPTIONS, POST"),
        ("/healthz", "GET, HEAD, OPTIONS"),
    ],
)
def test_what_is_allowed_is_said_in_whole(client: TestClient, path: str, allowed: str) -> None:
    asked, refused = client.options(path), client.put(path)
    assert (asked.status_code, asked.headers["Allow"]) == (204, allowed)
    assert (refused.status_code, refused.headers["Allow"]) == (405, allowed)


def test_what_is_not_there_has_no_methods(client: TestClient) -> None:
    assert client.options("/nowhere").status_code == 404


def test_head_is_get_without_its_body(client: TestClient, rows: Rows) -> None:
    job_id = rows.job()
    for path in ("/", "/v1/jobs", f"/v1/jobs/{job_id}", "/v1/jobs/job_x", "/metrics"):
        got, head = client.get(path), client.head(path)
        assert (head.status_code, head.content) == (got.status_code, b"")
        assert head.headers["Content-Type"] == got.headers["Content-Type"]


def test_head_of_a_stream_ends(client: TestClient, rows: Rows) -> None:
    response = client.head(f"/v1/jobs/{rows.job(status='running')}/events")
    assert response.status_code == 200
    assert response.headers["Content-Type"].startswith("text/event-stream")
