"""How fast workers take runs from a long queue: claim, write 20 points, end.

    python -m bench.load.claims [--queued 10000] [--workers 1 8] [--seconds 20]
                                [--url postgresql+psycopg://…/postgres ...]

The queue is filled with single jobs and with sweeps, of several keys. Worker processes then do
with the queue's own functions what a worker does for a run that trains in no time. Without
``--url``, SQLite in a temporary folder and this machine's PostgreSQL (a database of our own,
dropped afterwards) are measured in turn. Prints runs a second, the latency of a claim, and errors.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import insert, text

from bench.load.databases import BOTH, in_turn
from bench.load.processes import together
from mlhf_service.database import Database, now
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.state import settle
from mlhf_service.kit.ids import new_id
from mlhf_service.migrate import migrate
from mlhf_service.queue.claims import Limits, claim_next
from mlhf_service.queue.finish import Outcome, end_attempt
from mlhf_service.queue.ingest import Ingestor, StoredEvent
from mlhf_service.queue.leases import hold
from mlhf_service.runs.models import Run
from mlhf_service.storage.folder import FolderStorage

RUNS_OF_A_SWEEP = 100
KEYS = 10
LEASE = 60.0
POINTS = 20
CONFIG = {
    "model": {"name": "mlp", "params": {"hidden": [128, 64], "activation": "tanh"}},
    "dataset": {"name": "digits", "params": {"test_fraction": 0.2}},
    "optimizer": {"name": "adam", "params": {"lr": 0.001, "beta1": 0.9, "beta2": 0.999}},
    "budget": {"epochs": 5.0},
    "batch_size": 64,
    "seed": 0,
    "device": "auto",
}


@dataclass
class Measured:
    """What one worker saw."""

    runs: int = 0
    cpu_seconds: float = 0.0
    claims: list[float] = field(default_factory=list)
    cycles: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def fill(database: Database, queued: int) -> None:
    """Queue runs: half of them in single jobs, half in sweeps, of ten keys."""
    jobs: list[dict[str, Any]] = []
    runs: list[dict[str, Any]] = []
    made = 0
    while made < queued:
        size = RUNS_OF_A_SWEEP if made % (2 * RUNS_OF_A_SWEEP) == 0 else 1
        job = {
            "id": new_id("job"),
            "kind": "sweep" if size > 1 else "train",
            "name": "queued",
            "status": "queued",
            "spec": CONFIG,
            "share": f"local/key_{len(jobs) % KEYS}",
            "rank": time.time(),
            "ready_at": 0.0,
            "created_at": now(),
            "event_seq": 0,
        }
        jobs.append(job)
        for position in range(min(size, queued - made)):
            runs.append(
                {
                    "id": new_id("run"),
                    "job_id": job["id"],
                    "position": position,
                    "name": "queued",
                    "status": "queued",
                    "config": CONFIG,
                    "model": "mlp",
                    "dataset": "digits",
                    "optimizer": "adam",
                    "seed": 0,
                    "queue": "cpu",
                    "created_at": job["created_at"],
                }
            )
            made += 1
    with database.write() as session:
        for table, rows in ((Job, jobs), (Run, runs)):
            for start in range(0, len(rows), 1000):
                session.execute(insert(table), rows[start : start + 1000])


def work(url: str, folder: str, seconds: float, start: Any, results: Any) -> None:
    """Claim, write and end runs for a while, once all workers are there."""
    database, storage = Database(url), FolderStorage(Path(folder))
    measured, owner = Measured(), f"bench:{os.getpid()}"
    limits = Limits(per_tenant=100, per_key=50, memory_bytes=2**36)
    points = [
        {
            "step": step,
            "samples": 64 * step,
            "epoch": step / 20,
            "wall_seconds": 0.01 * step,
            "values": {"batch_loss": 1.0 / step},
        }
        for step in range(1, POINTS + 1)
    ]
    finished = {"status": "succeeded"}

    def cycle() -> None:
        began = time.perf_counter()
        try:
            claim = claim_next(database, "cpu", owner, LEASE, limits)
            measured.claims.append(time.perf_counter() - began)
            if claim is None:
                return
            batch = StoredEvent({"type": "points", "at": 0.0, "points": points})
            Ingestor(database, storage, claim, LEASE).apply([batch], 1)
            with database.write() as session:
                job, run = hold(session, claim, LEASE)
                end_attempt(session, job, run, Outcome("finished", finished), 5)
                settle(session, job)
            measured.runs += 1
            measured.cycles.append(time.perf_counter() - began)
        except Exception as error:
            reason = str(getattr(error, "orig", error)).partition("\n")[0]
            measured.errors.append(f"{type(error).__name__}: {reason}")

    cycle()  # a process's first run compiles its statements, a quarter of a second
    measured = Measured()
    start.wait()
    until, cpu = time.perf_counter() + seconds, time.process_time()
    while time.perf_counter() < until:
        cycle()
    measured.cpu_seconds = time.process_time() - cpu
    results.put(measured)
    database.dispose()


def measure(url: str, folder: str, workers: int, seconds: float) -> str:
    """One line: what so many workers did in so many seconds."""
    found = together(work, (url, folder, seconds), workers)
    claims = sorted(c for m in found for c in m.claims)
    cycles = sorted(c for m in found for c in m.cycles)
    errors = [e for m in found for e in m.errors]
    runs = sum(m.runs for m in found)
    cpu = 1e3 * sum(m.cpu_seconds for m in found) / max(1, runs)
    p50, p99 = statistics.median(claims), claims[int(0.99 * (len(claims) - 1))]
    line = (
        f"{workers:3} workers: {runs / seconds:6.1f} runs/s; claim p50 {1e3 * p50:.0f} ms, p99 "
        f"{1e3 * p99:.0f} ms, max {1e3 * claims[-1]:.0f} ms; claim to end p50 "
        f"{1e3 * statistics.median(cycles):.0f} ms; {cpu:.1f} ms CPU a run, of the worker; "
        f"{len(errors)} errors"
    )
    return line + "".join(f"\n    {error}" for error in sorted(set(errors))[:5])


def run(url: str, folder: str, options: argparse.Namespace) -> None:
    database = Database(url)
    migrate(database)
    fill(database, options.queued)
    if not database.is_sqlite:
        with database.engine.connect() as connection:
            connection.execute(text("analyze"))
    database.dispose()
    print(f"{'SQLite' if url.startswith('sqlite') else 'PostgreSQL'}, {options.queued} queued")
    for workers in options.workers:
        print(measure(url, folder, workers, options.seconds), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--queued", type=int, default=10_000)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--url", nargs="*", default=BOTH)
    options = parser.parse_args()
    print(f"load of the machine before: {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for url, folder in in_turn(options.url):
        run(url, folder, options)


if __name__ == "__main__":
    main()
