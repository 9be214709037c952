"""Kill -9 whatever runs, again and again; then count what was lost or doubled.

    python bench/chaos.py [--kills 60] [--jobs 6] [--seed 0]

Starts ``mlhf serve`` with two workers and short leases, submits jobs, and kills at random:
a trainer, a worker's child, a worker, the API, or the supervisor itself (which is then
started again). At the end every job must have succeeded, every curve must have each of its
steps once, and every run must have ended exactly once.
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
    "MLHF_LEASE_SECONDS": "3", "MLHF_HEARTBEAT_SECONDS": "0.5", "MLHF_POLL_SECONDS": "0.3",
    "MLHF_CHECKPOINT_SECONDS": "0.4", "MLHF_GRACE_SECONDS": "10", "MLHF_MAX_ATTEMPTS": "100",
}  # fmt: skip
VICTIMS = {
    "trainer": "mlhf.runner",
    "worker": "mlhf_service.queue.worker_main",
    "api": "mlhf_service.server",
    "supervisor": "mlhf_service.cli.main serve",
}


class Service:
    """A supervisor of our own, started again whenever it was killed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.client = Client(f"http://127.0.0.1:{self.port}")
        self.start()

    def start(self) -> None:
        command = [sys.executable, "-m", "mlhf_service.cli.main", "serve", "--port", str(self.port),
                   "--data-dir", str(self.folder), "--workers", "2", "--threads", "1"]  # fmt: skip
        with (self.folder.parent / "serve.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env={**os.environ, **SHORT}, stdout=log, stderr=log
            )

    def processes(self, kind: str) -> list[int]:
        """Living processes of one kind; a worker's child looks like its worker."""
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
    parser = argparse.ArgumentParser(description=__doc__)
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
    ids = [patiently(lambda n=n: service.client.submit({**SPEC, "seed": n}, f"chaos-{n}"))["id"]
           for n in range(jobs)]  # fmt: skip
    done: Counter[str] = Counter()
    while done.total() < kills:
        time.sleep(random.uniform(0.2, 2.5))
        kind = random.choice(list(VICTIMS))
        if service.kill(kind):
            done[kind] += 1
        if all(patiently(lambda i=i: service.client.job(i))["status"] == "succeeded" for i in ids):
            more = len(ids)  # all ended before all kills were spent: more work
            spec = {**SPEC, "seed": more}
            ids.append(
                patiently(lambda s=spec, n=more: service.client.submit(s, f"chaos-{n}"))["id"]
            )
    ended = [patiently(lambda i=i: service.client.wait(i, timeout=300)) for i in ids]
    faults = [fault for job in ended for fault in check(service.client, job)]
    attempts = sum(job["attempts"] for job in ended)
    print(f"killed: {dict(done)}; jobs: {len(ids)}, attempts: {attempts}")
    print("\n".join(faults) or "no job lost or doubled, no point lost or doubled, one end each")
    return len(faults) > 0


def check(client: Client, job: dict[str, Any]) -> list[str]:
    """What is wrong with an ended job."""
    faults = [] if job["status"] == "succeeded" else [f"{job['id']}: {job['status']}"]
    (run_id,) = job["run_ids"]
    curves = client.get(f"/v1/runs/{run_id}/curves", metric="batch_loss", x="steps")
    steps = [int(point[0]) for point in curves["series"][0]["points"]]
    if steps != list(range(1, STEPS + 1)):
        faults.append(f"{run_id}: {len(steps)} points, {len(set(steps))} steps, of {STEPS}")
    ends = [e for e in client.events(job["id"]) if e["event"] == "status"
            and e["data"]["status"] in ("succeeded", "failed", "cancelled")]  # fmt: skip
    if len(ends) != 2:  # one of the run, one of the job
        faults.append(f"{job['id']}: {len(ends)} ends")
    return faults


def patiently(ask: Any) -> Any:
    """Ask until the API is back; a creation carries a key, so asking again makes one job."""
    deadline = time.monotonic() + 60
    while True:
        try:
            return ask()
        except ServiceError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


if __name__ == "__main__":
    sys.exit(main())
