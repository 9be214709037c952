"""Lists, filters, searches and pages, each for some seconds from one or more connections."""

import asyncio
import itertools
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from bench.load.client import Connection, Request, Result, closed


async def addresses(host: str, port: int) -> dict[str, str]:
    """What is asked for: what it is called → its path, with ids of what there is."""
    connection = Connection(host, port)

    async def get(path: str) -> dict[str, object]:
        status, body = await connection.send(("GET", path, b""))
        assert status == 200, (path, status, body[:300])
        return dict(json.loads(body))

    cursor, deep = "", ""
    for _ in range(10):
        page = await get(f"/v1/runs?limit=500{cursor}")
        deep = f"&cursor={page['next_cursor']}"
        cursor = deep
    sweep = (await get("/v1/jobs?kind=sweep&limit=1"))["data"][0]["id"]  # type: ignore[index]
    run = (await get("/v1/runs?status=succeeded&limit=1"))["data"][0]["id"]  # type: ignore[index]
    connection.close()
    return {
        "jobs": "/v1/jobs",
        "jobs optimizer=adam": "/v1/jobs?optimizer=adam",
        "jobs model=lstm dataset=cifar10": "/v1/jobs?model=lstm&dataset=cifar10",
        "jobs status=failed": "/v1/jobs?status=failed",
        "jobs tag=team:text kind=sweep": "/v1/jobs?tag=team:text&kind=sweep",
        "jobs tag=paper:p77": "/v1/jobs?tag=paper:p77",
        "jobs q= rare": "/v1/jobs?q=%2324680",
        "jobs q= common": "/v1/jobs?q=ablation",
        "jobs sort=name": "/v1/jobs?sort=name",
        "jobs limit=500 kind=sweep": "/v1/jobs?limit=500&kind=sweep",
        "jobs limit=500 status=queued": "/v1/jobs?limit=500&status=queued",
        "job of 100 runs": f"/v1/jobs/{sweep}",
        "runs": "/v1/runs",
        "runs status=failed optimizer=adam": "/v1/runs?status=failed&optimizer=adam",
        "runs q= rare": "/v1/runs?q=%2324680",
        "runs q= common": "/v1/runs?q=ablation",
        "runs sort=name": "/v1/runs?sort=name",
        "runs, cursor after 5,000": f"/v1/runs?limit=50{deep}",
        "run": f"/v1/runs/{run}",
        "page of jobs": "/",
        "page of jobs, q= rare": "/?q=%2324680",
        "page of jobs, optimizer=adam": "/?optimizer=adam",
        "page of a job of 100 runs": f"/jobs/{sweep}",
        "page of a run": f"/runs/{run}",
        "page that compares 100 runs": f"/compare?job={sweep}",
        "events of a job": f"/v1/jobs/{sweep}/logs",
        "metrics": "/metrics",
        "healthz": "/healthz",
    }


async def each(
    host: str, port: int, seconds: float, clients: int, only: str, say: Callable[[str], None]
) -> dict[str, Result]:
    """Ask for one thing after the other."""
    found = {}
    # A process describes itself once, soon after its start: here, before anything is measured.
    await closed(host, port, 16, 0.1, lambda: ("GET", "/openapi.json", b""))
    for name, path in (await addresses(host, port)).items():
        if only not in name:
            continue
        request: Request = ("GET", path, b"")

        def again(one: Request = request) -> Request:
            return one

        await closed(host, port, 16, 0.1, again)  # the first in each process fill its caches
        found[name] = await closed(host, port, clients, seconds, again)
        say(f"{name:34} {found[name].line()}")
    return found


def creations() -> Callable[[], Request]:
    """Requests that create jobs, each another."""
    numbers = itertools.count()

    def following() -> Request:
        body = {
            "kind": "train",
            "name": f"load {next(numbers)}",
            "model": {"name": "mlp", "params": {"hidden": [64, 32]}},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "adam"},
            "budget": {"epochs": 5},
        }
        return "POST", "/v1/jobs", json.dumps(body).encode()

    return following


async def waiting_job(host: str, port: int) -> str:
    """Create a job that does not start for long; returns its id."""
    method, path, body = creations()()
    start = (datetime.now(UTC) + timedelta(days=300)).isoformat()
    spec = {**json.loads(body), "start_at": start}
    connection = Connection(host, port)
    status, made = await connection.send((method, path, json.dumps(spec).encode()))
    connection.close()
    assert status == 201, made
    return str(json.loads(made)["id"])


async def listen(host: str, port: int, job_id: str, clients: int) -> list[asyncio.StreamWriter]:
    """Open ``clients`` event streams of one job, and leave them open."""
    head = f"GET /v1/jobs/{job_id}/events HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    opened = []
    for _ in range(clients):
        reader, writer = await asyncio.open_connection(host, port)
        writer.write(head)
        status = await reader.readline()
        assert status.split()[1] == b"200", status
        opened.append(writer)
    return opened
