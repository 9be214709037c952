"""A whole service as a user starts it, in a folder of its own, on a free port."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mlhf_service.cli.demo import free_port
from mlhf_service.client import Client, ServiceError
from tests.machine import BARE
from tests.waiting import DEADLINE, until

# Short, since its end is waited for; long enough that on a busy machine only the killed miss it.
LEASE_OF_A_KILLED_WORKER = "8"
LONG_STEPS = 2000


class Serving:
    """Processes started from the command line, and what they leave running."""

    def __init__(self, data_dir: Path, environment: dict[str, str]) -> None:
        self.data_dir = data_dir
        self.environment = environment
        self.port = free_port()
        self.client = Client(f"http://127.0.0.1:{self.port}")
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *command: str, cwd: Path | None = None) -> subprocess.Popen[bytes]:
        """Start ``mlhf`` with a command, in ``cwd``; ``serve`` and ``api`` get the port."""
        arguments = list(command)
        if command[0] in ("serve", "api"):
            arguments += ["--port", str(self.port)]
        arguments += ["--data-dir", str(self.data_dir)]
        clean = {k: v for k, v in os.environ.items() if not k.startswith("MLHF_")}
        self.data_dir.parent.mkdir(parents=True, exist_ok=True)
        self.home.mkdir(exist_ok=True)
        with (self.data_dir.parent / f"{command[0]}.out").open("ab") as out:
            process = subprocess.Popen(
                # -P: like the script ``mlhf``, which does not import from the user's folder.
                [sys.executable, "-P", "-m", "mlhf_service.cli.main", *arguments],
                cwd=cwd,
                env={**clean, "HOME": str(self.home), **self.environment},
                stdout=out,
                stderr=out,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    @property
    def home(self) -> Path:
        """The home folder of whoever starts the service: nothing may be left there."""
        return self.data_dir.parent.with_name("home")

    def wait_until_ready(self) -> None:
        until(self._ready, "the service did not answer")

    def _ready(self) -> bool:
        try:
            self.client.get("/readyz")
        except ServiceError:
            assert self.processes[-1].poll() is None, self.output()
            return False
        return True

    def stop(self, process: subprocess.Popen[bytes]) -> int:
        """Ask it to stop as a user would; returns its exit code."""
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        return process.wait(timeout=DEADLINE)

    def output(self) -> str:
        return "".join(path.read_text() for path in self.data_dir.parent.glob("*.out"))

    def pids(self) -> dict[int, str]:
        """Every living process that has to do with this data folder: pid to name and command."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                name = (entry / "comm").read_text().strip()
                environment = (entry / "environ").read_bytes().decode(errors="replace")
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            # The trainer's environment names nothing of ours, its command line the folder.
            if state != "Z" and str(self.data_dir) in environment + command:
                found[int(entry.name)] = f"{name} {command}"
        return found

    def environment_of(self, pid: int) -> str:
        """The environment of a process; empty when it has ended meanwhile."""
        try:
            return Path(f"/proc/{pid}/environ").read_bytes().decode(errors="replace")
        except OSError:
            return ""

    def pid_of(self, part: str) -> int:
        """The oldest process whose command line has ``part`` in it."""
        until(lambda: any(part in c for c in self.pids().values()), f"no {part} runs")
        return min(pid for pid, command in self.pids().items() if part in command)

    def children(self, pid: int) -> list[int]:
        path = Path(f"/proc/{pid}/task/{pid}/children")
        return [int(child) for child in path.read_text().split()]


def checkpointed(serving: Serving, job_id: str) -> bool:
    """Whether the first run of a job has a committed checkpoint."""
    (run_id, *_) = serving.client.job(job_id)["run_ids"]
    artifacts = serving.client.get(f"/v1/runs/{run_id}/artifacts")["data"]
    return any(a["kind"] == "checkpoint" for a in artifacts)


@pytest.fixture
def environment() -> dict[str, str]:
    """Short times, so that what takes half a minute in production takes seconds here.

    But for the lease: a worker on a busy machine must not look like one that was killed.
    """
    return {
        "MLHF_LEASE_SECONDS": "60",
        "MLHF_HEARTBEAT_SECONDS": "0.5",
        "MLHF_POLL_SECONDS": "0.3",
        "MLHF_CHECKPOINT_SECONDS": "0.5",
        "MLHF_GRACE_SECONDS": "10",
    }


@pytest.fixture
def serving(tmp_path: Path, environment: dict[str, str]) -> Iterator[Serving]:
    serving = Serving(tmp_path / "service" / "data", environment)
    yield serving
    serving.client.close()
    for process in reversed(serving.processes):
        serving.stop(process)
    left = serving.pids()
    for pid in left:
        os.kill(pid, signal.SIGKILL)
    assert left == {}, f"left behind: {left}\n{serving.output()}"


@pytest.fixture
def browser() -> Iterator[Any]:
    """Chromium, without a page."""
    path = shutil.which("chromium")
    if path is None or BARE:
        pytest.skip("no chromium on this machine")
    api = pytest.importorskip("playwright.sync_api")
    with api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


def train(**changes: Any) -> dict[str, Any]:
    """A job that ends within a second or two of training."""
    return {
        "kind": "train",
        "model": {"name": "mlp", "params": {"hidden": [32]}},
        "dataset": {"name": "digits"},
        "optimizer": {"name": "adam"},
        "budget": {"epochs": 3},
        "batch_size": 64,
        **changes,
    }


def long(steps: int = LONG_STEPS, **changes: Any) -> dict[str, Any]:
    """A job of some five seconds of training, long enough to be disturbed."""
    return train(
        model={"name": "mlp", "params": {"hidden": [64, 64]}},
        optimizer={"name": "hf_adam"},
        budget={"steps": steps},
        evaluation={"every_epochs": 20},
        **changes,
    )
