"""A proxy before a server that refuses, delays, cuts off or falsifies what passes, when told."""

import asyncio
import socket
import threading
from contextlib import suppress
from typing import Literal

Mode = Literal["none", "refuse", "slow", "error", "throttle", "cut_request", "cut_answer", "hang"]

_CHUNK = 65536
_SLOW_SECONDS = 1.0  # before each chunk
_WHOLE = 4096  # bytes of a request or an answer that still pass before it is cut off
_ERRORS = {
    "error": (b"500 Internal Server Error", b"InternalError"),
    "throttle": (b"503 Slow Down", b"SlowDown"),
}


class FlakyProxy:
    """Passes on what it is sent to a port of this machine, in a thread of its own.

    Attributes:
        mode: What it does to connections and requests from now on.
        port: Where it listens.
    """

    def __init__(self, target: int) -> None:
        self.mode: Mode = "none"
        self._target = target
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._loop = asyncio.new_event_loop()
        self._open: set[asyncio.StreamWriter] = set()
        threading.Thread(target=self._run, daemon=True).start()

    def become(self, mode: Mode) -> None:
        """Change the mode; open connections end, so that no request keeps the one before."""
        self.mode = mode
        self._loop.call_soon_threadsafe(self._abort_all)

    def _abort_all(self) -> None:
        for writer in self._open:
            writer.transport.abort()

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(asyncio.start_server(self._serve, sock=self._socket))
        self._loop.run_forever()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._open.add(writer)
        try:
            if self.mode == "refuse":
                return
            if self.mode == "hang":
                await asyncio.sleep(3600)
            if self.mode in _ERRORS:
                await self._answer_with_error(reader, writer)
                return
            theirs, ours = await asyncio.open_connection("127.0.0.1", self._target)
            self._open.add(ours)
            try:
                await asyncio.gather(
                    self._pass(reader, ours, "cut_request"),
                    self._pass(theirs, writer, "cut_answer"),
                )
            finally:
                self._open.discard(ours)
                ours.transport.abort()
        except OSError:
            pass
        finally:
            self._open.discard(writer)
            writer.transport.abort()

    async def _pass(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, cut: Mode
    ) -> None:
        passed = 0
        while chunk := await reader.read(_CHUNK):
            if self.mode == "slow":
                await asyncio.sleep(_SLOW_SECONDS)
            if self.mode == cut and passed + len(chunk) > _WHOLE:
                writer.write(chunk[: max(0, _WHOLE - passed)])
                await writer.drain()
                raise ConnectionAbortedError
            passed += len(chunk)
            writer.write(chunk)
            await writer.drain()
        with suppress(OSError):
            writer.write_eof()

    async def _answer_with_error(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        await reader.read(_CHUNK)
        status, code = _ERRORS[self.mode]
        body = b"<Error><Code>" + code + b"</Code><Message>as asked for</Message></Error>"
        length = str(len(body)).encode()
        writer.write(
            b"HTTP/1.1 " + status + b"\r\nContent-Type: application/xml\r\nContent-Length: "
            b"" + length + b"\r\nConnection: close\r\n\r\n" + body
        )
        await writer.drain()
