"""How fast the points of trainers are written: spool to database, with as many workers.

    python -m bench.load.ingest [--workers 1 8] [--steps 250000] [--metrics 4]
                                [--url postgresql+psycopg://…/postgres ...]
    python -m bench.load.ingest --steps 750000 --workers 1   # one run of 3 million points

Each worker takes a run whose trainer has already told everything, and does with it what a worker
does: reads the spool, writes chunks under its lease, ends the run. Its spool is written before
the clock starts. Without ``--url``, SQLite in a temporary folder and this machine's PostgreSQL
(a database of our own, dropped afterwards) are measured in turn. Prints points a second over all
workers, until the last run has ended, and a CPU second of theirs, which a busy machine does not
change; and how the runs ended.
"""

import argparse
import math
import time
from pathlib import Path
from typing import Any

from sqlalchemy import select

from bench.load.databases import BOTH, in_turn
from bench.load.processes import together
from mlhf.core.events import EventFile, event
from mlhf_service.database import Database, now
from mlhf_service.jobs.models import Job
from mlhf_service.kit.ids import new_id
from mlhf_service.migrate import migrate
from mlhf_service.queue import attempt
from mlhf_service.queue.claims import Limits, claim_next
from mlhf_service.queue.trainer_process import TrainerProcess
from mlhf_service.runs import chunks
from mlhf_service.runs.models import CurveChunk, Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage

POINTS_OF_AN_EVENT = 250  # rows that a fast trainer flushes at once
# The first version, by a million rows of its table (findings on the first version).
BEFORE = {
    ("sqlite", 1): 7000,
    ("sqlite", 8): 7200,
    ("postgresql", 1): 4000,
    ("postgresql", 8): 7500,
}
CONFIG: dict[str, Any] = {
    "model": {"name": "mlp", "params": {"hidden": [32]}},
    "dataset": {"name": "digits", "params": {}},
    "optimizer": {"name": "adam", "params": {}},
    "budget": {"epochs": 1.0},
    "batch_size": 64,
    "seed": 0,
    "device": "cpu",
}
METRICS = ("batch_loss", "cg_residual", "damping", "learning_rate")


class Told(TrainerProcess):
    """A trainer that has ended: its events are there."""

    steps = 0
    metrics: tuple[str, ...] = METRICS

    def tell(self) -> None:
        """Write what it told."""
        self.folder.mkdir(parents=True)
        with EventFile(self.folder / "events.jsonl") as tell:
            for first in range(1, self.steps + 1, POINTS_OF_AN_EVENT):
                last = min(first + POINTS_OF_AN_EVENT, self.steps + 1)
                tell(event("points", points=[self.row(step) for step in range(first, last)]))
            totals = {"steps": self.steps, "samples": 64 * self.steps, "epochs": 1.0}
            tell(event("finished", status="succeeded", reason="", totals=totals, summary={}))

    def row(self, step: int) -> dict[str, Any]:
        loss = 2.3 / math.sqrt(step) * (1 + 0.1 * math.sin(12.9898 * step))
        values = (loss, 1e-3 * loss, 1.0 / step, 1e-3)
        return {
            "step": step,
            "samples": 64 * step,
            "epoch": step / 938,
            "wall_seconds": 0.00137 * step,
            "cpu_seconds": 0.00261 * step,
            "values": dict(zip(self.metrics, values, strict=False)),
        }

    def start(self, *_: Any) -> None:
        """It has been started, and has ended."""

    def exit_code(self) -> int:
        return 0


def work(url: str, folder: str, steps: int, metrics: int, start: Any, results: Any) -> None:
    """Take one run to its end, once all workers have their spools."""
    Told.steps, Told.metrics = steps, METRICS[:metrics]
    attempt.__dict__["TrainerProcess"] = Told
    settings = Settings(data_dir=Path(folder), database_url=url)
    database, storage = Database(url), FolderStorage(Path(folder) / "artifacts")
    claim = claim_next(database, "cpu", new_id("job"), settings.lease_seconds, Limits.of(settings))
    assert claim is not None
    one = attempt.Attempt(settings, database, storage, claim, lambda: False)
    assert isinstance(one.trainer, Told)
    one.trainer.tell()
    start.wait()
    began, cpu = time.perf_counter(), time.process_time()
    one.run()
    results.put((time.perf_counter() - began, time.process_time() - cpu, claim.run_id))
    database.dispose()


def make_runs(database: Database, count: int) -> None:
    """Queue so many runs, each of its own job."""
    for _ in range(count):
        job, run = new_id("job"), new_id("run")
        common = {"status": "queued", "created_at": now()}
        with database.write() as session:
            session.add(
                Job(id=job, kind="train", name="ingest", spec=CONFIG, ready_at=0.0, **common)
            )
            session.flush()
            session.add(
                Run(
                    id=run, job_id=job, position=0, name="ingest", config=CONFIG, model="mlp",
                    dataset="digits", optimizer="adam", seed=0, queue="cpu", **common,
                )
            )  # fmt: skip


def measure(url: str, folder: str, workers: int, options: argparse.Namespace) -> None:
    database = Database(url)
    migrate(database)
    make_runs(database, workers)
    found = together(work, (url, folder, options.steps, options.metrics), workers)
    seconds = max(elapsed for elapsed, _, _ in found)
    cpu = sum(spent for _, spent, _ in found)
    points = workers * options.steps * options.metrics
    with database.read() as session:
        ended = [session.get_one(Run, run_id) for *_, run_id in found]
        stored = sum(
            extent["count"]
            for *_, run_id in found
            for head in chunks.heads(session, run_id)
            for extent in head.extents.values()
        )
        size = sum(len(data) for data in session.scalars(select(CurveChunk.data)))
    outcomes = sorted({(run.status, run.attempt) for run in ended})
    assert stored == points, [run.error for run in ended]
    kind = "sqlite" if database.is_sqlite else "postgresql"
    before = BEFORE.get((kind, workers))
    print(
        f"{kind:10} {workers} workers: {points:,} points in {seconds:.1f} s: "
        f"{points / seconds:,.0f} points/s, {points / cpu:,.0f} a second of the workers' CPU"
        + (f" (before: {before:,})" if before else "")
        + f"; {stored:,} stored in {size / stored:.1f} bytes each; "
        + ", ".join(f"{status} at attempt {number}" for status, number in outcomes),
        flush=True,
    )
    database.dispose()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--steps", type=int, default=250_000, help="Of each run.")
    parser.add_argument("--metrics", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--url", nargs="+", default=BOTH)
    options = parser.parse_args()
    for kind in options.url:
        for workers in options.workers:
            for url, folder in in_turn([kind]):
                measure(url, folder, workers, options)


if __name__ == "__main__":
    main()
