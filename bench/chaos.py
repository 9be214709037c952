"""Kill processes of the service with SIGKILL at random; then count what was lost or doubled.

    python -m bench.chaos [--kills 60] [--jobs 6] [--seed 0]

Starts ``mlhf serve`` with two workers and short leases, submits jobs, and kills at random: a
trainer, a worker or its child, the API, or the supervisor itself, which is then started again.
At the end every job must have succeeded, every curve must have each of its steps once, and
every run must have ended exactly once.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from mlhf_service.cli.demo import free_port
from mlhf_service.client.client import Client, ServiceError

STEPS = 2000
SPEC: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [64, 64], "dropout": 0.1}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "hf_adam"},
    "budget": {"steps": STEPS},
    "batch_size": 64,
    "evaluation": {"every_epochs": 20},
}
SHORT = {
    "MLHF_LEASE_SECONDS": "3",
    "MLHF_HEARTBEAT_SECONDS": "0.5",
    "MLHF_POLL_SECONDS": "0.3",
    "MLHF_CHECKPOINT_SECONDS": "0.4",
    "MLHF_GRACE_SECONDS": "10",
    "MLHF_MAX_ATTEMPTS": "100",
}
VICTIMS = {
    "trainer": "mlhf.runner",
    "worker": "mlhf_service.queue.worker_main",
    "api": "mlhf_service.server",
    "supervisor": "mlhf_service.cli.main serve",
}


class Service:
    """A running ``mlhf serve``, started again whenever it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.client = Client(f"http://127.0.0.1:{self.port}")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlhf_service.cli.main", "serve"]
        command += ["--port", str(self.port), "--data-dir", str(self.folder)]
        command += ["--workers", "2", "--threads", "1"]
        with (self.folder.parent / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **SHORT}, stdout=log, stderr=log
            )

    def processes(self, kind: str) -> list[int]:
        """Return the living processes of one kind; the child of a worker looks like the worker."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and int(entry.name) != os.getpid():
                try:
                    command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                    text = command + (entry / "environ").read_bytes().decode(errors="replace")
                except OSError:
                    continue
                if VICTIMS[kind] in command and str(self.folder) in text:
                    found.append(int(entry.name))
        return found

    def kill(self, kind: str) -> bool:
        pids = self.processes(kind)
        if not pids:
            return False
        os.kill(random.choice(pids), signal.SIGKILL)
        if kind == "supervisor":
            self.process.wait()
            deadline = time.monotonic() + 40
            while any(self.processes(k) for k in VICTIMS) and time.monotonic() < deadline:
                time.sleep(0.1)
            self.start()
        return True


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--jobs", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as name:
        service = Service(Path(name) / "data")
        try:
            return attack(service, options.kills, options.jobs)
        finally:
            service.process.terminate()
            service.process.wait(60)


def attack(service: Service, kills: int, jobs: int) -> int:
    ids = [submit(service.client, n) for n in range(jobs)]
    done: Counter[str] = Counter()
    while done.total() < kills:
        time.sleep(random.uniform(0.2, 2.5))
        kind = random.choice(list(VICTIMS))
        if service.kill(kind):
            done[kind] += 1
        if all(patiently(lambda i=i: service.client.job(i))["status"] == "succeeded" for i in ids):
            ids.append(submit(service.client, len(ids)))  # all ended before the last kill
    ended = [patiently(lambda i=i: service.client.wait(i, timeout=300)) for i in ids]
    faults = [fault for job in ended for fault in check(service.client, job)]
    attempts = sum(job["attempts"] for job in ended)
    print(f"killed: {dict(done)}; jobs: {len(ids)}, attempts: {attempts}")
    print("\n".join(faults) or "no job lost or doubled, no point lost or doubled, one end each")
    return len(faults) > 0


def submit(client: Client, number: int) -> str:
    """Submit one job and return its id."""
    spec, key = {**SPEC, "seed": number}, f"chaos-{number}"
    return str(patiently(lambda: client.submit(spec, key))["id"])


def check(client: Client, job: dict[str, Any]) -> list[str]:
    """Return what is wrong with a job that has ended."""
    faults = [] if job["status"] == "succeeded" else [f"{job['id']}: {job['status']}"]
    (run_id,) = job["run_ids"]
    curves = client.get(f"/v1/runs/{run_id}/curves", metric="batch_loss", x="steps")
    steps = [int(point[0]) for point in curves["series"][0]["points"]]
    if steps != list(range(1, STEPS + 1)):
        faults.append(f"{run_id}: {len(steps)} points, {len(set(steps))} steps, of {STEPS}")
    statuses = [e["data"]["status"] for e in client.events(job["id"]) if e["event"] == "status"]
    ends = [status for status in statuses if status in ("succeeded", "failed", "cancelled")]
    if len(ends) != 2:  # one of the run, one of the job
        faults.append(f"{job['id']}: {len(ends)} ends")
    return faults


def patiently(call: Any) -> Any:
    """Call until the API answers. Submissions carry a key: a repeat makes no second job."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return call()
        except ServiceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
