"""One process that keeps a whole service: migrations, API, workers, sweeper.

Its children end with it and are started again when they crash. They are stopped in order:
workers first, so that what they train is checkpointed and queued again while the rest runs.
"""

import fcntl
import http.client
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from types import FrameType
from typing import IO

from mlhf_service import measures
from mlhf_service.child import Child
from mlhf_service.data_folder import clear_broker, clear_spool, prepare
from mlhf_service.database import Database
from mlhf_service.database_wait import wait_for
from mlhf_service.errors import StartError
from mlhf_service.keys.first import tell_first_key
from mlhf_service.kit.ids import new_id
from mlhf_service.migrate import migrate
from mlhf_service.mirrors.writer import MlflowWriter
from mlhf_service.networks.by_worker import Checker
from mlhf_service.queue.celery_app import require_broker
from mlhf_service.queue.names import WORKER_SLOT
from mlhf_service.queue.sweeper import Sweeper, void_leases
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from mlhf_service.upkeep import Upkeep
from mlhf_service.webhooks.delivery import Deliverer

log = logging.getLogger(__name__)

_API = "api"
_TICK_SECONDS = 0.2
_API_STOP_SECONDS = 5.0
_READY_TIMEOUT_SECONDS = 1.0


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
        self._stop_measures: Callable[[], None] = lambda: None

    @property
    def address(self) -> str:
        """The URL the API answers at, once ``run`` has bound it."""
        if self._socket is None:
            return ""
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises StartError when the service cannot start."""
        settings = self.settings
        prepare(settings)
        self._take_lock()
        if self._api:
            self._socket = bind(settings.host, settings.port)
        if self._embedded and settings.broker.startswith("filesystem:"):
            clear_broker(settings)
        try:
            require_broker(settings)
        except StartError as error:  # it may come back: jobs are kept in the database
            log.warning("%s. Jobs wait until it does.", error)
        database = Database(settings.database)
        wait_for(database, settings.database_wait_seconds)
        migrate(database)
        if self._api and settings.auth == "keys":
            tell_first_key(database, sys.stdout)
        if self._embedded and database.is_sqlite:
            clear_spool(settings)
            void_leases(database)  # the lock says that no worker of ours is alive
        sweeper = Sweeper(settings, database, expire_at_once=self._embedded and database.is_sqlite)
        deliverer = Deliverer(settings, database)
        mlflow = MlflowWriter(settings, database)
        upkeep = Upkeep(settings, database, open_storage(settings))
        checker = Checker(settings, database) if self._queues else None
        self._plan()
        signal.signal(signal.SIGTERM, self._on_signal)
        signal.signal(signal.SIGINT, self._on_signal)
        try:
            if settings.metrics_port is not None:
                self._stop_measures = self._serve_measures(settings.metrics_port)
            for child in self._children:
                child.start()
            sweeper.start()
            upkeep.start()
            deliverer.start()
            mlflow.start()
            if checker is not None:
                checker.start()
            self._watch(upkeep)
        finally:
            sweeper.stop()
            upkeep.stop()
            deliverer.stop()
            mlflow.stop()
            if checker is not None:
                checker.stop()
            self._stop_children()
            self._stop_measures()
            database.dispose()
            if self._socket is not None:
                self._socket.close()

    def _serve_measures(self, port: int) -> Callable[[], None]:
        host = self.settings.metrics_host
        try:
            return measures.serve(host, port)
        except OSError as error:
            reason = error.strerror or str(error)
            raise StartError(
                f"Cannot listen on {host}:{port} for metrics: {reason}. Choose another "
                "MLHF_METRICS_PORT."
            ) from None

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
        if self._socket is not None:
            descriptor = self._socket.fileno()
            for number in range(1, self.settings.api_processes + 1):
                name = _API if number == 1 else f"{_API}-{number}"
                arguments = ["--fd", str(descriptor)]
                self._add(name, "mlhf_service.server", arguments, fds=[descriptor])
        for number, queue in enumerate(self._queues, start=1):
            name = f"{queue}-{number}"
            # One GPU a worker, unless the deployment says which.
            environment = {WORKER_SLOT: new_id("slot")}  # one at a time, however often it starts
            if queue == "gpu" and "CUDA_VISIBLE_DEVICES" not in os.environ:
                environment |= {"CUDA_VISIBLE_DEVICES": str(number - 1)}
            arguments = ["--queue", queue, "--name", name]
            self._add(f"worker-{name}", "mlhf_service.queue.worker_main", arguments, environment)

    def _add(
        self,
        name: str,
        module: str,
        arguments: Sequence[str],
        environment: Mapping[str, str] | None = None,
        fds: Sequence[int] = (),
    ) -> None:
        command = [sys.executable, "-m", module, *arguments, "--parent", str(os.getpid())]
        variables = self._environment() | dict(environment or {})
        logs = self.settings.logs_dir if self.settings.log_output == "files" else None
        self._children.append(Child(name, command, variables, logs, fds))

    def _environment(self) -> dict[str, str]:
        root = self.settings.root
        return {
            **os.environ,
            **self.settings.environment(),
            "PYTHONSAFEPATH": "1",  # the user's folder may hold an app/ or a celery.py
            # What libraries cache goes under the data folder too.
            "TMPDIR": str(root / "tmp"),
            "XDG_CACHE_HOME": str(root / "cache"),
            "MPLCONFIGDIR": str(root / "cache" / "matplotlib"),
            "TORCHINDUCTOR_CACHE_DIR": str(root / "cache" / "inductor"),
        }

    def _watch(self, upkeep: Upkeep) -> None:
        """Restart what crashes, until a signal stops us; print the address once it answers."""
        waiting = self._api
        while not self._stop.wait(_TICK_SECONDS):
            if upkeep.outdated is not None:
                raise StartError(upkeep.outdated)
            for child in self._children:
                self._look_after(child)
            if waiting and self._is_ready():
                waiting = False
                self._children[0].settled = True  # an API, which is planned first
                self._print_address()

    def _look_after(self, child: Child) -> None:
        if child.process is None:
            if time.monotonic() >= child.restart_at:
                child.start()
            return
        code = child.collect()
        if code is None:
            return
        if child.cannot_start:
            reason = child.last_line or f"it ended with code {code}"
            where = f" (all of it: {child.log_path})" if child.log_path else ""
            raise StartError(f"{child.name} cannot start: {reason}{where}")
        log.warning(
            "%s ended with code %s; it starts again in %.1f s%s",
            child.name,
            code,
            child.backoff,
            f" (see {child.log_path})" if child.log_path else "",
        )

    def _is_ready(self) -> bool:
        """Whether /readyz says that the service can take jobs."""
        if self._socket is None:
            return False
        host, port = self._socket.getsockname()[:2]
        connection = http.client.HTTPConnection(host, port, timeout=_READY_TIMEOUT_SECONDS)
        try:
            connection.request("GET", "/readyz")
            ready = connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
        return ready

    def _print_address(self) -> None:
        if self.settings.log_format == "json":
            log.info("MLHF serves %s", self.address)
            return
        text = (
            f"MLHF serves {self.address} (data in {self.settings.root}).\n"
            f"Pages: {self.address}/   API: {self.address}/docs   Ctrl-C stops it.\n"
        )
        if self._embedded and not self._queues:
            text += "No worker runs here: nothing is trained until there is one (mlhf worker).\n"
        sys.stdout.write(text)
        sys.stdout.flush()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        self._stop.set()

    def _stop_children(self) -> None:
        api = [c for c in self._children if c.name.startswith(_API)]
        workers = [c for c in self._children if not c.name.startswith(_API)]
        _terminate(workers, self.settings.grace_seconds + 10.0)
        _terminate(api, _API_STOP_SECONDS)


def _terminate(children: Sequence[Child], seconds: float) -> None:
    """Ask each to stop, wait, and kill the process group of what is still there."""
    running = [child.process for child in children if child.process is not None]
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
    for child in children:
        child.collect()  # the last lines of its log


def bind(host: str, port: int) -> socket.socket:
    """A listening socket, kept by the supervisor so that it outlives a crashed API."""
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
