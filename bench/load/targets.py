"""Every target of load, measured on both databases: a table of line, target, measured.

    python -m bench.load.targets [--runs 100000] [--points 50000000] [--seconds 2] [--soak 60]
                                 [--url sqlite postgresql+psycopg://…/postgres] [--only reads …]

For each database: fills one of our own, starts ``mlhf api --processes 2`` on it, asks for
everything, follows a job from 2,000 clients, creates 150 jobs a second (open loop: a latency
counts from when its request was due), mixes all of that for a while and looks at the API's
memory; then, on another database, 8 workers claim from 10,000 queued runs. Nothing is left behind.
On two idle cores: the fill takes some 5 minutes a database, all else some 3.
"""

import argparse
import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from bench.load import claims, points, reads
from bench.load.client import Connection, closed, opened
from bench.load.databases import BOTH, in_turn
from bench.load.fill import fill, settle
from bench.load.processes import together
from mlhf_service.database import Database
from mlhf_service.deployment import bind
from mlhf_service.migrate import migrate

PARTS = ("reads", "streams", "posts", "soak", "claims")
HOST = "127.0.0.1"
FOLLOWERS, RATE = 2000, 150.0
_LIST = ("GET", "/v1/jobs?limit=1", b"")


@dataclass
class Table:
    """What was measured, line by line."""

    lines: list[tuple[str, str, str, bool]] = field(default_factory=list)

    def add(self, line: str, target: str, measured: str, met: bool) -> None:
        self.lines.append((line, target, measured, met))
        print(f"{'ok    ' if met else 'MISSED'} {line}: {measured} (target {target})", flush=True)

    def text(self) -> str:
        rows = [
            f"| {line} | {goal} | {got}{'' if met else ' **missed**'} |"
            for line, goal, got, met in self.lines
        ]
        return "\n".join(["| line | target | measured |", "|---|---|---|", *rows])


@contextmanager
def service(url: str, folder: str) -> Iterator[tuple[int, int]]:
    """An API of two processes on a database; yields its port and its supervisor's process id."""
    with bind(HOST, 0) as free:
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "MLHF_DATABASE_URL": url,
        "MLHF_DATA_DIR": folder,
        "MLHF_RATE_LIMIT_READS": "100000000/hour",
        "MLHF_RATE_LIMIT_WRITES": "100000000/hour",
    }
    code = "from mlhf_service.cli.main import main; main()"
    command = [sys.executable, "-c", code, "api", "--processes", "2", "--port", str(port)]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    try:
        uvloop.run(_ready(port))
        yield port, process.pid
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


async def _ready(port: int) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        try:
            if (await Connection(HOST, port).send(("GET", "/healthz", b"")))[0] == 200:
                return
        except OSError:
            await asyncio.sleep(0.2)
    raise SystemExit("the service did not start")


def resident(supervisor: int) -> float:
    """Megabytes that the API's processes hold."""
    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            fields = dict(line.split(":", 1) for line in status.read_text().splitlines())
        except OSError:
            continue
        if int(fields["PPid"]) == supervisor:
            total += int(fields["VmRSS"].split()[0])
    return total / 1024


async def measure_reads(table: Table, name: str, port: int, seconds: float, most: float) -> None:
    for line, found in (await reads.each(HOST, port, seconds, 1, "", lambda _: None)).items():
        p95 = 1e3 * found.percentile(0.95)
        fine = set(found.statuses) == {200}
        table.add(f"{name}: {line}, p95", f"{most:.0f} ms", f"{p95:.0f} ms", fine and p95 <= most)


async def measure_streams(table: Table, name: str, port: int, seconds: float) -> None:
    alone = await closed(HOST, port, 1, seconds, lambda: _LIST)
    writers = await reads.listen(HOST, port, await reads.waiting_job(HOST, port), FOLLOWERS)
    under = await closed(HOST, port, 1, seconds, lambda: _LIST)
    for writer in writers:
        writer.close()
    before, after = (1e3 * one.percentile(0.95) for one in (alone, under))
    measured = f"{before:.1f} ms → {after:.1f} ms"
    table.add(f"{name}: list with {FOLLOWERS:,} followers", "x 2", measured, after <= 2 * before)


async def measure_posts(table: Table, name: str, port: int, seconds: float) -> None:
    await closed(HOST, port, 50, 2.0, reads.creations())  # its connections, and what is cached
    found = await opened(HOST, port, RATE, seconds, reads.creations())
    rate, p99 = found.statuses[201] / found.seconds, 1e3 * found.percentile(0.99)
    fine = set(found.statuses) == {201} and rate > 0.95 * RATE and p99 <= 500
    table.add(
        f"{name}: POST /v1/jobs, p99", "500 ms at 150/s", f"{p99:.0f} ms at {rate:.0f}/s", fine
    )


async def measure_soak(table: Table, name: str, port: int, supervisor: int, seconds: float) -> None:
    """Creations, lists and streams together; after a third, memory should grow no more."""
    writers = await reads.listen(HOST, port, await reads.waiting_job(HOST, port), 200)

    async def load(share: float) -> None:
        await asyncio.gather(
            opened(HOST, port, 20.0, share * seconds, reads.creations()),
            opened(HOST, port, 20.0, share * seconds, lambda: ("GET", "/v1/runs?limit=100", b"")),
        )

    await load(1 / 3)
    early = resident(supervisor)
    await load(2 / 3)
    late = resident(supervisor)
    for writer in writers:
        writer.close()
    measured = f"{early:.0f} MB → {late:.0f} MB in {2 * seconds / 3:.0f} s"
    table.add(f"{name}: memory of the API", "+ 5 %", measured, late <= 1.05 * early)


def measure_claims(table: Table, name: str, url: str, folder: str, seconds: float) -> None:
    database = Database(url)
    migrate(database)
    claims.fill(database, 10_000)
    settle(database)
    database.dispose()
    found = together(claims.work, (url, folder, seconds), 8)
    rate, longest = sum(m.runs for m in found) / seconds, max(c for m in found for c in m.claims)
    errors = sum(len(m.errors) for m in found)
    table.add(f"{name}: claims by 8 workers", "60/s", f"{rate:.0f}/s", rate >= 60 and not errors)
    table.add(f"{name}: the longest claim", "1 s", f"{longest:.2f} s", longest <= 1)


def run(table: Table, options: argparse.Namespace) -> None:
    for url, folder in in_turn(options.url):
        name = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
        if set(options.only) == {"claims"}:
            continue
        began = time.monotonic()
        database = Database(url)
        migrate(database)
        trained = fill(database, options.runs)
        count = points.add(database, trained, options.points)
        settle(database)
        database.dispose()
        print(
            f"{name}: {options.runs:,} runs, {count:,} points in {time.monotonic() - began:.0f} s"
        )
        with service(url, folder) as (port, supervisor):
            if "reads" in options.only:
                most = 100 if name == "SQLite" else 50
                uvloop.run(measure_reads(table, name, port, options.seconds, most))
            if "streams" in options.only:
                uvloop.run(measure_streams(table, name, port, 3 * options.seconds))
            if "posts" in options.only:
                uvloop.run(measure_posts(table, name, port, 10 * options.seconds))
            if "soak" in options.only:
                uvloop.run(measure_soak(table, name, port, supervisor, options.soak))
    if "claims" in options.only:
        for url, folder in in_turn(options.url):
            name = "SQLite" if url.startswith("sqlite") else "PostgreSQL"
            measure_claims(table, name, url, folder, 6 * options.seconds)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--points", type=int, default=50_000_000)
    parser.add_argument("--seconds", type=float, default=2.0, help="For each thing asked for.")
    parser.add_argument("--soak", type=float, default=60.0, help="Seconds of the mixed load.")
    parser.add_argument("--url", nargs="*", default=BOTH)
    parser.add_argument("--only", nargs="*", default=PARTS, choices=PARTS)
    options = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    table = Table()
    run(table, options)
    print(table.text())
    raise SystemExit(not all(met for *_, met in table.lines))


if __name__ == "__main__":
    main()
