"""A service in a folder of its own, whose processes can be found and disturbed by their kind."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar
from urllib.parse import quote

from bench.faults.servers import S3, PostgreSQL, Redis, Server
from mlhf.core import process
from mlhf_service.cli.demo import free_port
from mlhf_service.client import Client, ServiceError

_T = TypeVar("_T")

# Short times, so that what takes half a minute in production takes seconds here.
SHORT = {
    "MLHF_LEASE_SECONDS": "3",
    "MLHF_HEARTBEAT_SECONDS": "0.5",
    "MLHF_POLL_SECONDS": "0.3",
    "MLHF_CHECKPOINT_SECONDS": "0.4",
    "MLHF_GRACE_SECONDS": "10",
    # So short a lease also runs out by itself on a busy machine.
    "MLHF_MAX_ATTEMPTS": "100",
}
# By what their command line has in it, or the name that they give themselves.
_PROCESSES = {
    "trainer": process.TRAINER,
    "spare": process.SPARE,
    "worker": "mlhf_service.queue.worker_main",
    "api": "mlhf_service.server",
}
_NAMED = (process.TRAINER, process.SPARE)
ANSWER_SECONDS = 900.0  # on a machine with little to give: a start takes some 20 s of a core


class Deployment:
    """``mlhf serve`` with two workers, on SQLite and a folder, or on servers of its own.

    Args:
        folder: For all of it; made anew.
        servers: By what they are to the service: ``database``, ``broker``, ``store``.
        environment: Further settings.
        workers_environment: Of workers that run apart, under a supervisor of their own, as they
            do on another machine; None keeps them with the API.
        workers: How many.
    """

    def __init__(
        self,
        folder: Path,
        servers: dict[str, Server],
        environment: Mapping[str, str] = MappingProxyType({}),
        workers_environment: Mapping[str, str] | None = None,
        workers: int = 2,
    ) -> None:
        self.folder = folder
        self._count = str(workers)
        self._ours: dict[tuple[int, str], bool] = {}  # by process id and command line
        self.data = folder / "data"
        self._apart = self.data / "apart"  # below the folder by which processes are known
        self.spool = (self.data if workers_environment is None else self._apart) / "spool"
        self._workers_environment = workers_environment
        self._workers: subprocess.Popen[bytes] | None = None
        self.servers = servers
        self._environment = environment
        self.port = free_port()
        self.client = Client(f"http://127.0.0.1:{self.port}", timeout=10.0)
        self._process: subprocess.Popen[bytes] | None = None
        self._starting = threading.Lock()
        self._down = False  # killed by us, and not to be started by another thread
        self._ended = False  # for good, whoever was about to start something again
        for server in servers.values():
            server.start()
        self.start()
        if workers_environment is not None:
            self._workers = self._start_apart(workers_environment)

    @property
    def kinds(self) -> list[str]:
        """What there is to disturb."""
        return [*_PROCESSES, "supervisor", *self.servers]

    def start(self) -> None:
        if self._ended:
            return
        arguments = ["serve", "--port", str(self.port), "--data-dir", str(self.data)]
        arguments += ["--workers", self._count if self._workers_environment is None else "0"]
        self._process = self._run([*arguments, "--threads", "1"], {})
        self._down = False

    def _start_apart(self, environment: Mapping[str, str]) -> subprocess.Popen[bytes]:
        arguments = ["worker", "--workers", self._count, "--data-dir", str(self._apart)]
        return self._run(arguments, {**environment, "MLHF_THREADS": "1"})

    def _run(self, arguments: list[str], more: Mapping[str, str]) -> subprocess.Popen[bytes]:
        environment = {**os.environ, **SHORT}
        for server in self.servers.values():
            environment |= server.environment
        environment |= self._environment
        if self._workers_environment is not None and "store" not in self.servers:
            environment["MLHF_ARTIFACTS_URL"] = str(self.data / "artifacts")
        environment |= more
        # As an installed service has it: none compiles its modules at every start.
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        command = [sys.executable, "-m", "mlhf_service.cli.main", *arguments]
        with (self.folder / f"{arguments[0]}.log").open("ab") as log:
            return subprocess.Popen(command, env=environment, stdout=log, stderr=log)

    def pids(self, kind: str) -> list[int]:
        """The living processes of a kind; of a worker, Celery's main process and its child."""
        return self.alive().get(kind, [])

    def alive(self) -> dict[str, list[int]]:
        """The living processes by their kind; without a server that is being disturbed."""
        found: dict[str, list[int]] = {}
        for pid, (name, command) in self.processes().items():
            for kind, wanted in _PROCESSES.items():
                if name == wanted or (name not in _NAMED and wanted in command):
                    found.setdefault(kind, []).append(pid)
        process = self._process
        if process is not None and process.poll() is None:
            found["supervisor"] = [process.pid]
        for kind, server in self.servers.items():
            if not server.busy.locked() and (pids := server.pids()):
                found[kind] = pids
        return found

    def processes(self) -> dict[int, tuple[str, str]]:
        """Every living process of this service, the servers apart: its name and command line."""
        found = {}
        for entry in Path("/proc").iterdir():
            if not entry.name.isdigit() or int(entry.name) == os.getpid():
                continue
            try:
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if not self._is_ours(entry, command):
                    continue
                name = (entry / "comm").read_text().strip()
                state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            if state != "Z":
                found[int(entry.name)] = (name, command)
        return found

    def _is_ours(self, entry: Path, command: str) -> bool:
        """Whether a process names this folder; asked often, so what was found is kept."""
        key = int(entry.name), command
        if key not in self._ours:
            text = command + (entry / "environ").read_bytes().decode(errors="replace")
            self._ours[key] = f"{self.data}" in text
        return self._ours[key]

    def kill(self, kind: str, pid: int, down: float) -> bool:
        """SIGKILL; what nobody else starts again is started after ``down`` seconds.

        Returns whether it lived until then.
        """
        if kind in self.servers:
            server = self.servers[kind]
            with server.busy:
                if not server.kill():
                    return False
                time.sleep(down)
                if not self._ended:
                    server.start()
            return True
        if kind != "supervisor":
            return _signal(pid, signal.SIGKILL)
        with self._starting:
            process = self._process
            if process is None or process.poll() is not None or process.pid != pid:
                return False
            process.kill()
            process.wait()
            self._down = process.returncode == -signal.SIGKILL
            if not self._down:
                return False
        time.sleep(down)
        # A service starts only when the one before has gone: its folder is locked.
        wait_until(lambda: not self.processes(), "processes outlived their supervisor")
        with self._starting:
            self.start()
        return True

    def stop_for(self, kind: str, pid: int, seconds: float) -> bool:
        """SIGSTOP, and SIGCONT after so many seconds. Returns whether it lived until then."""
        if kind in self.servers:
            server = self.servers[kind]
            with server.busy:
                if not server.stop():
                    return False
                time.sleep(seconds)
                server.go_on()
            return True
        if not _signal(pid, signal.SIGSTOP):
            return False
        time.sleep(seconds)
        _signal(pid, signal.SIGCONT)
        return True

    def patiently(self, call: Callable[[], _T]) -> _T:
        """Call until the service answers. Submissions carry a key: a repeat makes no second job."""
        deadline = time.monotonic() + ANSWER_SECONDS
        while True:
            try:
                return call()
            except ServiceError:
                if time.monotonic() > deadline:
                    raise
                self.keep_running()
                time.sleep(0.1)

    def keep_running(self) -> None:
        """Start a supervisor again that ended by itself, as an init system does.

        It does where its database is away when it starts.
        """
        with self._starting:
            if self._process is not None and self._process.poll() is not None and not self._down:
                self.start()

    def submit(self, spec: dict[str, Any], key: str) -> str:
        """Submit one job, known by a key of any characters; returns its id."""
        return str(self.patiently(lambda: self.client.submit(spec, quote(key, safe="")))["id"])

    def end(self) -> list[str]:
        """Stop everything as a user would; returns what outlived that."""
        faults = []
        for supervisor in (self._workers, self._process):
            if supervisor is None or supervisor.poll() is not None:
                continue
            supervisor.terminate()
            try:
                supervisor.wait(ANSWER_SECONDS)
            except subprocess.TimeoutExpired:
                faults.append("a supervisor did not stop")
                supervisor.kill()
        time.sleep(0.2)
        faults += [
            f"outlived the service: {name}, {command}"
            for name, command in self.processes().values()
        ]
        self.kill_all()
        self.client.close()
        return faults

    def kill_all(self) -> None:
        """Leave nothing behind."""
        with self._starting:
            self._ended = True
        for pid in [*self.pids("supervisor"), *self.processes()]:
            _signal(pid, signal.SIGKILL)
        if self._workers is not None:
            self._workers.kill()
        for server in self.servers.values():
            server.kill()


def embedded(folder: Path, workers: int = 2) -> Deployment:
    """On SQLite, with a folder as broker."""
    folder.mkdir(parents=True)
    return Deployment(folder, {}, workers=workers)


def in_parts(folder: Path, workers: int = 2) -> Deployment:
    """On PostgreSQL, Redis, and S3 where there is a server of it."""
    folder.mkdir(parents=True)
    servers: dict[str, Server] = {
        "database": PostgreSQL(folder / "pg"),
        "broker": Redis(folder / "redis"),
    }
    if S3.missing() is None:
        servers["store"] = S3(folder / "s3")
    return Deployment(folder, servers, workers=workers)


def wait_until(condition: Callable[[], Any], message: str, seconds: float = ANSWER_SECONDS) -> Any:
    """Return the condition's first true value. Raises TimeoutError."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(message)
        time.sleep(0.02)
    return value


def _signal(pid: int, number: int) -> bool:
    """Send it; returns whether the process lived."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
