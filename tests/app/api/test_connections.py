"""Connections on which a request is begun and does not go on are closed."""

import asyncio
import gc
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import uvicorn
from starlette.types import Receive, Scope, Send

from mlhf_service.api import connections
from mlhf_service.api.connections import Impatient, Server
from tests.waiting import DEADLINE


async def _echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the length of the body."""
    length, more = 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            return
        length += len(message.get("body", b""))
        more = message.get("more_body", False)
    head = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]}
    await send(head)
    await send({"type": "http.response.body", "body": b"%04d" % length})


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of a server that waits a short while for the rest of a request."""
    monkeypatch.setattr(connections, "REQUEST_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = uvicorn.Config(_echo, http=Impatient, backlog=1, lifespan="off", log_level="error")
        server = Server(config)
        thread = threading.Thread(
            target=asyncio.run, args=(server.serve(sockets=[listener]),), daemon=True
        )
        thread.start()
        yield listener.getsockname()[1]
        server.should_exit = True
        thread.join(DEADLINE)


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\nX-",
        b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\nGET / HT",
    ],
    ids=["nothing", "half a head", "half a body", "half of the second"],
)
def test_what_does_not_go_on_is_closed(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
        client.sendall(sent)
        while client.recv(4096):
            pass


def test_a_body_that_goes_on_is_waited_for(port: int) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
        client.sendall(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n")
        for _ in range(10):  # longer than may pass between two pieces
            client.sendall(b"x")
            time.sleep(0.1)
        assert client.recv(4096).endswith(b"0010")


def test_what_the_server_has_made_is_left_out_of_collections(port: int) -> None:
    """A full collection, of which there is one every few hundred requests, stops all of them."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE):
            assert gc.get_freeze_count() > 10_000
    finally:
        gc.unfreeze()
