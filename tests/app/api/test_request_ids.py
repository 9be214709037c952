"""Each answer names its request, and so does each line of the log about it."""

import logging
from collections.abc import Iterator

import pytest
import structlog
from fastapi.testclient import TestClient


class Seen(logging.Handler):
    """Keeps what was logged about requests, with the ids that were bound then."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[dict[str, object]] = []

    def emit(self, record: logging.LogRecord) -> None:
        bound = structlog.contextvars.get_contextvars()
        self.lines.append({"message": record.getMessage(), **bound})


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> Iterator[Seen]:
    handler, log = Seen(), logging.getLogger("mlhf_service.requests")
    monkeypatch.setattr(log, "handlers", [handler])
    log.setLevel(logging.INFO)
    yield handler
    log.setLevel(logging.NOTSET)


def test_a_request_gets_an_id(client: TestClient, seen: Seen) -> None:
    first, second = (client.get("/v1/jobs?q=private").headers["X-Request-Id"] for _ in range(2))
    assert first.startswith("req_")
    assert first != second
    line = seen.lines[0]
    assert line["request_id"] == first
    assert (line["message"], line["method"], line["status"]) == ("GET /v1/jobs", "GET", 200)
    assert str(line["route"]).endswith("/jobs")
    assert "private" not in str(line)


def test_a_given_id_is_kept(client: TestClient) -> None:
    answer = client.get("/v1/jobs", headers={"X-Request-Id": "from-a.proxy_1"})
    assert answer.headers["X-Request-Id"] == "from-a.proxy_1"


@pytest.mark.parametrize("given", ["", "a b", "a" * 65, "é", "a\tb", "{}"])
def test_what_is_no_id_is_replaced(client: TestClient, given: str) -> None:
    answer = client.get("/v1/jobs", headers={"X-Request-Id": given.encode()})
    assert answer.headers["X-Request-Id"].startswith("req_")


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [("/v1/jobs/job_x", {}, 404), ("/nowhere", {}, 404), ("/", {"Host": "evil.com"}, 403)],
)
def test_refusals_have_one_too(
    client: TestClient, seen: Seen, path: str, headers: dict[str, str], status: int
) -> None:
    answer = client.get(path, headers=headers)
    assert answer.status_code == status
    assert answer.headers["X-Request-Id"] == seen.lines[0]["request_id"]


def test_probes_are_not_told(client: TestClient, seen: Seen) -> None:
    client.get("/healthz")
    client.get("/metrics")
    assert seen.lines == []
