"""Whether a deployment of an older version goes on while it is replaced by this one.

    python -m bench.rolling_upgrade 8e7125c

The code of that commit is checked out into a folder of its own, and serves on PostgreSQL and
Redis servers of the script's own: an API and a worker. Then, with jobs in every place, the
API is replaced by this version, which migrates the database; the older worker, alone, takes and
ends jobs; a worker of this version is started, the older one is stopped in the middle of a job,
and the newer one ends what it had begun. Each job must succeed, with each step once and with the
weights of an undisturbed run of the version that began it. Ends with code 1 where one does not.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.faults.deployment import SHORT, wait_until
from bench.faults.jobs import SPEC
from bench.faults.servers import PostgreSQL, Redis
from mlhf_service.cli.demo import free_port
from mlhf_service.client import Client, ServiceError
from mlhf_service.client.records import TERMINAL

HERE = Path(__file__).parents[1]
_SECONDS = 300.0


class Processes:
    """What is started, of either version, on the same servers and store."""

    def __init__(self, folder: Path, environment: dict[str, str], older: Path) -> None:
        self._folder, self._environment, self._older = folder, environment, older
        self._running: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, *arguments: str, older: bool = False) -> subprocess.Popen[bytes]:
        """Run ``mlhf`` with these arguments and a data folder of its own."""
        root = self._older if older else HERE
        environment = {**os.environ, **SHORT, **self._environment}
        environment["PYTHONPATH"] = f"{root}/engine{os.pathsep}{root}/app"
        command = [sys.executable, "-P", "-m", "mlhf_service.cli.main", *arguments]
        command += ["--data-dir", str(self._folder / name)]
        with (self._folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
        self._running.append(process)
        return process

    def api(self, name: str, *, older: bool = False) -> tuple[subprocess.Popen[bytes], Client]:
        port = free_port()
        process = self.start(name, "api", "--port", str(port), older=older)
        client = Client(f"http://127.0.0.1:{port}", timeout=30.0)
        wait_until(lambda: self._answers(client, process), f"{name} does not answer", _SECONDS)
        return process, client

    def _answers(self, client: Client, process: subprocess.Popen[bytes]) -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"it ended with {process.returncode}: {self.logs()}")
        try:
            return bool(client.get("/healthz"))
        except ServiceError:
            return False

    def logs(self) -> str:
        paths = [*self._folder.glob("*.log"), *self._folder.glob("*/logs/*.log")]
        return "\n".join(f"--- {path.name}\n{path.read_text()[-2000:]}" for path in sorted(paths))

    def stop_all(self) -> None:
        for process in self._running:
            process.terminate()
        for process in self._running:
            process.wait(60)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Stop it in order."""
    process.terminate()
    process.wait(60)


@contextmanager
def told_with(processes: Processes) -> Iterator[None]:
    """Print the logs where something fails."""
    try:
        yield
    except Exception:
        print(processes.logs())
        raise


@contextmanager
def checkout(revision: str) -> Iterator[Path]:
    """The code of a commit, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="mlhf-older-") as name:
        archive = subprocess.run(
            ["git", "-C", str(HERE), "archive", revision], check=True, capture_output=True
        ).stdout
        subprocess.run(["tar", "-x", "-C", name], input=archive, check=True)
        yield Path(name)


def ended(client: Client, job_id: str) -> dict[str, Any]:
    def over() -> dict[str, Any] | None:
        job = client.job(job_id)
        return job if job["status"] in TERMINAL else None

    found: dict[str, Any] = wait_until(over, f"{job_id} does not end", _SECONDS)
    return found


def running(client: Client, job_id: str, step: int = 1) -> None:
    """Wait until a job has come so far."""

    def so_far() -> bool:
        job = client.job(job_id)
        if job["status"] in TERMINAL:
            raise RuntimeError(f"{job_id} has ended already: {job['status']} {job['error']}")
        return ((job["progress"] or {}).get("step") or 0) >= step

    wait_until(so_far, f"{job_id} gets no further", _SECONDS)


def faults_of(client: Client, job: dict[str, Any]) -> list[str]:
    """What is wrong with a job that has ended."""
    if job["status"] != "succeeded":
        return [f"{job['status']}: {job['error']}"]
    steps = job["spec"]["budget"]["steps"]
    (run_id,) = job["run_ids"]
    curves = client.get(f"/v1/runs/{run_id}/curves", metric="batch_loss", x="steps")
    seen = [int(point[0]) for point in curves["series"][0]["points"]]
    return [] if seen == list(range(1, steps + 1)) else [f"{len(seen)} points of {steps}"]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("revision", help="A commit, a tag or a branch of the older version.")
    options = parser.parse_args()
    if missing := PostgreSQL.missing() or Redis.missing():
        sys.exit(f"{missing}: no deployment in parts can be made here")
    wrong = 0

    def tell(what: str, client: Client, job_id: str) -> None:
        nonlocal wrong
        job = ended(client, job_id)
        faults = faults_of(client, job)
        wrong += bool(faults)
        verdict = "; ".join(faults) or f"succeeded, attempts: {job['attempts']}"
        print(f"[{time.monotonic() - began:4.0f} s] {what}: {verdict}", flush=True)

    began = time.monotonic()
    long = {**SPEC, "budget": {"steps": 6000}}
    with ExitStack() as stack:
        older = stack.enter_context(checkout(options.revision))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mlhf-rolling-")))
        folder.chmod(0o755)
        servers = [PostgreSQL(folder / "pg"), Redis(folder / "redis")]
        environment = {"MLHF_ARTIFACTS_URL": str(folder / "artifacts"), "MLHF_THREADS": "1"}
        for server in servers:
            stack.callback(server.kill)
            server.start()
            environment |= server.environment
        processes = Processes(folder, environment, older)
        stack.callback(processes.stop_all)
        stack.enter_context(told_with(processes))

        old_api, client = processes.api("old-api", older=True)
        old_worker = processes.start("old-worker", "worker", older=True)
        tell("before: all of the older version", client, client.submit(SPEC)["id"])
        amid = client.submit(long)["id"]
        running(client, amid)
        _, new_client = processes.api("new-api")
        print(f"[{time.monotonic() - began:4.0f} s] migrated, while a job runs", flush=True)
        by_old = client.submit(SPEC)["id"]
        client = new_client
        stop(old_api)
        tell("begun by the older worker before, ended after", client, amid)
        tell("taken by the older API after", client, by_old)
        tell(
            "taken by the newer API, trained by the older worker", client, client.submit(SPEC)["id"]
        )
        handed = client.submit(long)["id"]
        running(client, handed, 200)
        processes.start("new-worker", "worker")
        stop(old_worker)
        tell("begun by the older worker, ended by the newer", client, handed)
        tell("after: all of this version", client, client.submit(SPEC)["id"])
        if wrong:
            print(processes.logs())
    sys.exit(int(bool(wrong)))


if __name__ == "__main__":
    main()
