"""Connections: those whose request does not arrive are closed, and processes share new ones."""

import asyncio
import resource
import socket

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from mlhf_service.api.collector import set_aside

REQUEST_SECONDS = 20.0  # for the whole head of a request; and between two pieces of its body
_WAITING = 2048  # connections that may wait to be accepted
_WARM_SECONDS = 30.0  # until the first requests have made what is made once


class Impatient(HttpToolsProtocol):
    """HTTP that closes a connection on which a request is begun and does not go on."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._timer is None:
            self._wait()

    def on_headers_complete(self) -> None:
        self._wait()
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        self._wait()
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._stop()
        super().on_message_complete()

    def _wait(self) -> None:
        self._stop()
        self._timer = self.loop.call_later(REQUEST_SECONDS, self._give_up)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.flow.read_paused:  # we are the one who is slow: the body waits to be read
            self._wait()
        elif not self.transport.is_closing():
            self.transport.close()


class Server(uvicorn.Server):
    """A server that leaves connections to others on the same socket.

    asyncio accepts as many connections at once as its ``backlog``: with 1, a burst of them is
    spread over all processes that listen. The kernel's queue is made long again afterwards.
    """

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets=sockets)
        for server in self.servers:
            for listener in server.sockets:
                # A duplicate: asyncio shows its sockets without this method.
                with socket.socket(fileno=socket.dup(listener.fileno())) as same:
                    same.listen(_WAITING)
        set_aside()
        asyncio.get_running_loop().call_later(_WARM_SECONDS, set_aside)


def allow_many_files() -> None:
    """Let this process open as many connections as the system lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
