"""A lean HTTP client, and two ways of loading a service with it.

Closed loop: each connection sends its next request when its last is answered. Open loop: requests
are due at random moments of a given rate whatever the service does, and a latency counts from
the moment its request was due, so that a service that stalls cannot hide it. Run it with
``uvloop.run``, which takes the least of the processors that the service needs.
"""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

Request = tuple[str, str, bytes]  # method, path, body
_BUFFER = 2**22  # bytes: a large answer is taken in without stopping the service again and again


@dataclass
class Result:
    """What one load found. Times in seconds.

    Attributes:
        cpu_share: Of a core, that the client itself took: near 1 the client was the limit.
    """

    times: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)
    seconds: float = 0.0
    cpu_share: float = 0.0

    def percentile(self, share: float) -> float:
        ordered = sorted(self.times) or [float("nan")]
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def line(self) -> str:
        """Median, percentiles, rate, and what was answered."""
        p50, p95, p99, top = (1e3 * self.percentile(p) for p in (0.5, 0.95, 0.99, 1.0))
        answered = ", ".join(f"{n} x {status}" for status, n in sorted(self.statuses.items()))
        return (
            f"p50 {p50:7.1f}  p95 {p95:7.1f}  p99 {p99:7.1f}  max {top:7.1f} ms   "
            f"{len(self.times) / self.seconds:6.1f}/s   {answered}   "
            f"client {100 * self.cpu_share:.0f} % of a core"
        )


class Connection:
    """One connection that is kept open."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, request: Request) -> tuple[int, bytes]:
        """Send one request; returns the status and the body.

        One that the server has closed meanwhile, having been idle, is opened anew.
        """
        used = self._streams is not None
        try:
            return await self._sent(request)
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            begun = isinstance(error, asyncio.IncompleteReadError) and bool(error.partial)
            if begun or not used:
                raise
            self.close()
            return await self._sent(request)

    async def _sent(self, request: Request) -> tuple[int, bytes]:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, limit=_BUFFER)
        reader, writer = self._streams
        method, path, body = request
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n"
        if body:
            head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        writer.write(head.encode() + b"\r\n" + body)
        lines = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower().split("\r\n")
        status = int(lines[0].split()[1])
        headers = dict(line.split(": ", 1) for line in lines[1:] if ": " in line)
        if headers.get("transfer-encoding") == "chunked":
            content = b""
            while size := int(await reader.readline(), 16):
                content += (await reader.readexactly(size + 2))[:-2]
            await reader.readline()
        else:
            content = await reader.readexactly(int(headers.get("content-length", 0)))
        if headers.get("connection") == "close":
            self.close()
        return status, content

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def closed(
    host: str, port: int, clients: int, seconds: float, next_request: Callable[[], Request]
) -> Result:
    """``clients`` connections, each with one request at a time, for ``seconds``."""
    result = Result()
    until = time.perf_counter() + seconds

    async def one() -> None:
        connection = Connection(host, port)
        while (began := time.perf_counter()) < until:
            status, _ = await connection.send(next_request())
            result.times.append(time.perf_counter() - began)
            result.statuses[status] += 1
        connection.close()

    await _timed(result, *(one() for _ in range(clients)))
    return result


async def opened(
    host: str, port: int, rate: float, seconds: float, next_request: Callable[[], Request]
) -> Result:
    """``rate`` requests a second at random moments, over as many connections as it takes."""
    result = Result()
    idle: list[Connection] = []

    async def one(due: float) -> None:
        connection = idle.pop() if idle else Connection(host, port)
        status, _ = await connection.send(next_request())
        result.times.append(time.perf_counter() - due)
        result.statuses[status] += 1
        idle.append(connection)

    async def arrivals() -> None:
        chance, due = random.Random(0), time.perf_counter()
        until = due + seconds
        async with asyncio.TaskGroup() as group:
            while (due := due + chance.expovariate(rate)) < until:
                await asyncio.sleep(due - time.perf_counter())
                group.create_task(one(due))

    await _timed(result, arrivals())
    for connection in idle:
        connection.close()
    return result


async def _timed(result: Result, *work: Coroutine[Any, Any, None]) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*work)
    result.seconds = time.perf_counter() - began
    result.cpu_share = (time.process_time() - cpu) / result.seconds
