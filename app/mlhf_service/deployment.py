"""One process that keeps a whole service: migrations, API, workers, sweeper.

Its children die with it, start again when they fall, and are stopped in order: workers
first, so that what they train is check-pointed and queued again while all else still runs.
"""

import fcntl
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import IO

from mlhf_service.database import Database
from mlhf_service.migrate import migrate
from mlhf_service.queue.celery_app import configure
from mlhf_service.queue.sweeper import Sweeper, void_leases
from mlhf_service.settings import Settings

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.2
_MAX_BACKOFF_SECONDS = 10.0
_LOG_LIMIT_BYTES = 10 * 2**20
_API_STOP_SECONDS = 5.0


class StartError(Exception):
    """The service cannot start, for a reason the user can mend."""


@dataclass
class Child:
    """A process that is kept running."""

    name: str
    command: Sequence[str]
    pass_fds: tuple[int, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None
    failures: int = 0
    started_at: float = 0.0
    restart_at: float = field(default=0.0)


class Supervisor:
    """Starts, watches and stops the processes of one deployment.

    Args:
        settings: All of it; the children get the same by their environment.
        api: Whether to serve HTTP.
        queues: The queue of each worker to keep.
        embedded: Whether the data folder is ours alone, with its database and broker.
    """

    def __init__(
        self, settings: Settings, *, api: bool, queues: Sequence[str], embedded: bool
    ) -> None:
        self.settings = settings
        self._api = api
        self._queues = queues
        self._embedded = embedded
        self._children: list[Child] = []
        self._socket: socket.socket | None = None
        self._lock: IO[str] | None = None
        self._stop = threading.Event()

    @property
    def address(self) -> str:
        """The URL the API answers at, once ``run`` has bound it."""
        if self._socket is None:
            return ""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self, announce: bool = True) -> None:
        """Serve until SIGTERM or SIGINT. Raises StartError when it cannot start."""
        settings = self.settings
        settings.root.mkdir(parents=True, exist_ok=True)
        self._take_lock()
        if self._api:
            self._socket = bind(settings.host, settings.port)
        if self._embedded and settings.broker == "filesystem://":
            shutil.rmtree(settings.broker_dir, ignore_errors=True)
        for folder in (settings.logs_dir, settings.root / "tmp", settings.spool_dir):
            folder.mkdir(parents=True, exist_ok=True)
        configure(settings)
        database = Database(settings.database)
        migrate(database)
        if self._embedded and database.is_sqlite:
            shutil.rmtree(settings.spool_dir, ignore_errors=True)
            void_leases(database)  # the lock says that no worker of ours is alive
        sweeper = Sweeper(settings, database, expire_at_once=self._embedded and database.is_sqlite)
        self._plan()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            for child in self._children:
                self._start(child)
            sweeper.start()
            if announce and self._api:
                self._announce()
            while not self._stop.wait(_TICK_SECONDS):
                self._watch()
        finally:
            sweeper.stop()
            self._stop_children()
            database.dispose()
            if self._socket is not None:
                self._socket.close()

    def _take_lock(self) -> None:
        if not self._embedded:
            return
        self._lock = (self.settings.root / "serve.lock").open("w")
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StartError(
                f"Another mlhf serve uses {self.settings.root}. Stop it, or choose another "
                "--data-dir."
            ) from None

    def _plan(self) -> None:
        parent = ("--parent", str(os.getpid()))
        python = (sys.executable, "-m")
        if self._socket is not None:
            descriptor = self._socket.fileno()
            command: tuple[str, ...] = (
                *python,
                "mlhf_service.server",
                "--fd",
                str(descriptor),
                *parent,
            )
            self._children.append(Child("api", command, (descriptor,)))
        for number, queue in enumerate(self._queues, start=1):
            name = f"{queue}-{number}"
            command = (
                *python,
                "mlhf_service.queue.worker_main",
                "--queue",
                queue,
                "--name",
                name,
                *parent,
            )
            # One GPU a worker, unless the deployment says which.
            device = {"CUDA_VISIBLE_DEVICES": str(number - 1)} if queue == "gpu" else {}
            if "CUDA_VISIBLE_DEVICES" in os.environ:
                device = {}
            self._children.append(Child(f"worker-{name}", command, environment=device))

    def _start(self, child: Child) -> None:
        path = self.settings.logs_dir / f"{child.name}.log"
        _rotate(path)
        with path.open("ab") as output:
            child.process = subprocess.Popen(
                child.command,
                env=self._environment() | child.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=child.pass_fds,
                start_new_session=True,  # a terminal's Ctrl-C is ours to hand on, in order
            )
        child.started_at = time.monotonic()

    def _environment(self) -> dict[str, str]:
        root = self.settings.root
        return {
            **os.environ,
            **self.settings.environment(),
            # What libraries cache goes under the data folder too.
            "TMPDIR": str(root / "tmp"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "MPLCONFIGDIR": str(root / "cache" / "matplotlib"),
            "TORCHINDUCTOR_CACHE_DIR": str(root / "cache" / "inductor"),
        }

    def _watch(self) -> None:
        for child in self._children:
            if child.process is not None and child.process.poll() is not None:
                lived = time.monotonic() - child.started_at
                child.failures = 0 if lived > 60 else child.failures + 1
                wait = min(_MAX_BACKOFF_SECONDS, 0.2 * 2**child.failures)
                child.restart_at = time.monotonic() + wait
                log.warning(
                    "%s ended with code %s; it starts again in %.1f s (see %s)",
                    child.name,
                    child.process.returncode,
                    wait,
                    self.settings.logs_dir / f"{child.name}.log",
                )
                child.process = None
            elif child.process is None and time.monotonic() >= child.restart_at:
                self._start(child)

    def _announce(self) -> None:
        text = (
            f"MLHF serves {self.address} (data in {self.settings.root}).\n"
            f"Pages: {self.address}/   API: {self.address}/docs   Ctrl-C stops it.\n"
        )
        sys.stdout.write(text)
        sys.stdout.flush()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _stop_children(self) -> None:
        api = [c for c in self._children if c.name == "api"]
        workers = [c for c in self._children if c.name != "api"]
        _terminate(workers, self.settings.grace_seconds + 10.0)
        _terminate(api, _API_STOP_SECONDS)


def _terminate(children: Sequence[Child], seconds: float) -> None:
    """Ask each to stop, wait, and kill the process group of what is still there."""
    running = [c.process for c in children if c.process is not None]
    for process in running:
        if process.poll() is None:
            process.terminate()
    deadline = time.monotonic() + seconds
    for process in running:
        try:
            process.wait(timeout=max(0.1, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            log.warning("process %s did not stop in time: killed", process.pid)
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, kept by the supervisor so that it outlives a fallen API."""
    try:
        family, _, _, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, socket.SOCK_STREAM)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except OSError as error:
        reason = error.strerror or str(error)
        raise StartError(
            f"Cannot listen on {host}:{port}: {reason}. Choose another --port or --host."
        ) from None
    listener.listen(2048)
    return listener


def _rotate(path: Path) -> None:
    if path.exists() and path.stat().st_size > _LOG_LIMIT_BYTES:
        path.replace(path.with_suffix(".log.1"))
