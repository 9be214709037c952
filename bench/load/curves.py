"""How fast a curve of a million points is read over HTTP, and what the API needs for it.

    python -m bench.load.curves [--steps 1000000] [--metrics 4] [--windows 300]
                                [--url postgresql+psycopg://…/postgres ...]

A run of so many steps is written through the service's own writer; then an API process of its own
answers: windows of all widths at 1,000 points, all metrics at once, four clients at a time, the
whole as CSV and as Parquet, streamed, and the files that are made on demand. Prints latencies, the
API's CPU time, which a busy machine does not change, and how much its memory grew at its peak.
Without ``--url``, SQLite and this machine's PostgreSQL are measured in turn.
"""

import argparse
import gc
import os
import random
import socket
import statistics
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import numpy as np

from bench.load.databases import BOTH, in_turn
from bench.load.ingest import METRICS, make_runs
from mlhf_service.database import Database
from mlhf_service.migrate import migrate
from mlhf_service.runs import chunks
from mlhf_service.runs.blocks import Block
from mlhf_service.runs.models import Run

POINTS = 1000
BEFORE = {"sqlite": 9.8, "postgresql": 17.5}  # seconds of the first version, whole at 1,000


def curve(steps: int, metrics: int) -> Block:
    """A noisy curve of each metric."""
    step = np.arange(1, steps + 1)
    noise = np.random.default_rng(0)
    values = {
        name: 2.3 / np.sqrt(step) * np.exp(0.2 * noise.standard_normal(steps))
        for name in METRICS[:metrics]
    }
    present = {name: np.ones(steps, dtype=bool) for name in values}
    seconds = np.asarray(0.00137 * step, dtype=np.float64)
    cpu = np.asarray(1.9 * seconds, dtype=np.float64)
    return Block(step, 64 * step, step / 938, seconds, cpu, values, present)


def memory(pid: int, name: str) -> float:
    """A figure of a process's memory in MB: VmRSS, or VmHWM for its peak."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024
    raise ValueError(name)


class Api:
    """A service's API in a process of its own, and its memory."""

    def __init__(self, url: str, folder: str) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.base = f"http://127.0.0.1:{port}"
        command = ["-m", "mlhf_service.cli.main", "api", "--data-dir", folder, "--port", str(port)]
        self.process = subprocess.Popen(
            [sys.executable, *command],
            env={**os.environ, "MLHF_DATABASE_URL": url},
            stdout=subprocess.DEVNULL,
        )
        self.client = httpx.Client(base_url=self.base, timeout=300.0)
        while True:
            try:
                self.client.get("/healthz").raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.2)
        self.pid = self._api_pid()

    def _api_pid(self) -> int:
        """The process that answers: the supervisor's child."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        for pid in map(int, children.split()):
            if "mlhf_service.server" in Path(f"/proc/{pid}/cmdline").read_text():
                return pid
        return self.process.pid

    def cpu(self) -> float:
        """Seconds of CPU time so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def reset_peak(self) -> float:
        """Measure CPU and the peak of memory from here; returns what memory is used now."""
        self.began = self.cpu()
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")
        return memory(self.pid, "VmRSS")

    def close(self) -> None:
        self.client.close()
        self.process.terminate()
        self.process.wait(30)


def said(name: str, seconds: list[float], api: Api, before: float) -> None:
    ordered = sorted(seconds)
    p50, p95 = statistics.median(ordered), ordered[int(0.95 * (len(ordered) - 1))]
    grown = memory(api.pid, "VmHWM") - before
    cpu = 1e3 * (api.cpu() - api.began) / len(seconds)
    print(
        f"  {name}: p50 {1e3 * p50:.0f} ms, p95 {1e3 * p95:.0f} ms, "
        f"max {1e3 * ordered[-1]:.0f} ms, {cpu:.0f} ms of CPU each; "
        f"memory {before:.0f} MB + {grown:.0f} MB at the peak",
        flush=True,
    )


def streamed(name: str, path: str, api: Api) -> None:
    """Download a file and forget it."""
    before, started = api.reset_peak(), time.perf_counter()
    with api.client.stream("GET", path) as answer:
        answer.raise_for_status()
        size = sum(map(len, answer.iter_raw()))
    taken = time.perf_counter() - started
    said(f"{name}, {size / 1e6:.1f} MB", [taken], api, before)


def measure(url: str, folder: str, options: argparse.Namespace) -> None:
    database = Database(url)
    migrate(database)
    make_runs(database, 1)
    began = time.perf_counter()
    with database.write() as session:
        run = session.query(Run).one()
        chunks.append(session, run.id, 1, curve(options.steps, options.metrics))
        run.status, run.attempt, run_id = "succeeded", 1, run.id
    kind = "sqlite" if database.is_sqlite else "postgresql"
    points = options.steps * options.metrics
    seconds = time.perf_counter() - began
    print(
        f"{kind}: {options.steps:,} steps of {options.metrics} metrics, written in bulk at "
        f"{points / seconds:,.0f} points/s (before: {BEFORE[kind]} s for a million at 1,000)"
    )
    database.dispose()
    api = Api(url, folder)
    path = f"/v1/runs/{run_id}/curves"
    chance = random.Random(0)

    def timed(**params: str | int) -> float:
        started = time.perf_counter()
        api.client.get(path, params={"max_points": POINTS, **params}).raise_for_status()
        return time.perf_counter() - started

    def window() -> dict[str, str | int]:
        width = int(options.steps * 10 ** chance.uniform(-3, 0))
        first = chance.randrange(options.steps - width + 1)
        return {"metric": METRICS[0], "min_step": first, "max_step": first + width}

    try:
        timed(metric=METRICS[0])
        before = api.reset_peak()
        said("the whole", [timed(metric=METRICS[0]) for _ in range(20)], api, before)
        before = api.reset_peak()
        said("any window", [timed(**window()) for _ in range(options.windows)], api, before)
        before = api.reset_peak()
        said(f"all {options.metrics} metrics", [timed() for _ in range(10)], api, before)
        before = api.reset_peak()
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(lambda _: timed(**window()), range(options.windows)))
        said("any window, four clients at once", found, api, before)
        for form in ("csv", "parquet"):
            streamed(f"{form} of one metric", f"{path}?metric={METRICS[0]}&format={form}", api)
        for name in ("curves.csv", "curves.png"):
            for when in ("made", "kept"):
                streamed(f"{name}, {when}", f"/v1/runs/{run_id}/artifacts/{name}", api)
    finally:
        api.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--metrics", type=int, default=4, choices=range(1, 5))
    parser.add_argument("--windows", type=int, default=300)
    parser.add_argument("--url", nargs="+", default=BOTH)
    options = parser.parse_args()
    gc.disable()  # a collection of ours would be taken for a slow answer
    for url, folder in in_turn(options.url):
        measure(url, folder, options)


if __name__ == "__main__":
    main()
