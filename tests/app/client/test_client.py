"""The client: what it needs installed, and how it reads a stream of events."""

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from mlhf_service.client import Client, ServiceError
from tests.app.client.transports import client_of


def test_it_needs_no_package_of_the_service() -> None:
    code = """
import sys

class Missing:
    names = {"fastapi", "starlette", "sqlalchemy", "alembic", "typer", "click", "rich", "celery",
             "kombu", "torch", "numpy", "pydantic_settings", "uvicorn", "jinja2", "matplotlib"}

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in self.names:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

# httpx itself asks for click and rich, and does without.
sys.meta_path.insert(0, Missing())
from mlhf_service.client import Client, ServiceError
with Client("http://127.0.0.1:9") as client:
    try:
        client.job("job_0")
    except ServiceError as error:
        assert "mlhf serve" in str(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


class Stream(httpx.SyncByteStream):
    """A response's body, in chunks that break off with an error where that is asked for."""

    def __init__(self, *chunks: bytes, breaks: bool = False) -> None:
        self.chunks, self.breaks = chunks, breaks

    def __iter__(self) -> Iterator[bytes]:
        yield from self.chunks
        if self.breaks:
            raise httpx.ReadError("connection lost")


def message(number: int) -> bytes:
    return f'event: log\ndata: {{"line":{number}}}\nid: {number}\n\n'.encode()


def stream_of(*chunks: bytes, breaks: bool = False) -> httpx.Response:
    kind = {"content-type": "text/event-stream; charset=utf-8"}
    return httpx.Response(200, headers=kind, stream=Stream(*chunks, breaks=breaks))


def test_events_are_read_whatever_the_chunks() -> None:
    body = b"retry: 2000\n\n" + message(1) + b": ping\n\n" + message(2)
    client, _ = client_of(stream_of(*[body[i : i + 7] for i in range(0, len(body), 7)]))
    assert list(client.events("job_0")) == [
        {"id": number, "event": "log", "data": {"line": number}} for number in (1, 2)
    ]


def test_a_lost_connection_is_taken_up_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    client, asked = client_of(
        stream_of(message(1), message(2), b"event: lo", breaks=True), stream_of(message(3))
    )
    assert [event["id"] for event in client.events("job_0")] == [1, 2, 3]
    assert [request.headers["last-event-id"] for request in asked] == ["0", "2"]


def test_a_refused_stream_says_why() -> None:
    problem = json.dumps({"title": "Not found", "detail": "There is no such job."})
    client, _ = client_of(httpx.Response(404, content=problem))
    with pytest.raises(ServiceError, match="no such job"):
        list(client.events("job_0"))


def test_what_is_no_address_is_said() -> None:
    with pytest.raises(ServiceError, match="is not an address"):
        Client("http://[::1")


def test_another_server_is_said() -> None:
    client, _ = client_of(httpx.Response(200, content="<html>hello</html>"))
    with pytest.raises(ServiceError, match="another server"):
        client.job("job_0")


def test_an_upload_tells_its_progress(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(b"x" * 200_000)
    told: list[tuple[str, int, int]] = []
    checking = threading.Event()
    ids: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            ids.append(request.url.path.rpartition("/")[2])
            checking.set()
            return httpx.Response(200, json={"stage": "checking", "done": 3, "total": 9})
        body = request.read()
        assert b"x" * 200_000 in body
        assert checking.wait(30), "nobody asked how far it is"
        assert ids[0].encode() in body
        return httpx.Response(201, json={"id": "ds_1"})

    client = Client("http://test")
    client._http = httpx.Client(base_url="http://test", transport=httpx.MockTransport(answer))
    made = client.upload_files("t", "table", [path], {}, lambda *what: told.append(what))
    assert made == {"id": "ds_1"}
    assert [each for each in told if each[0] == "sending"][-1] == ("sending", 200_000, 200_000)
    assert ("checking", 3, 9) in told
