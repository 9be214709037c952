"""A worker's heartbeat: a thread that keeps its row in the database, and checks its machine."""

import logging
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

import mlhf
from mlhf_service.database import Database, now
from mlhf_service.settings import Settings
from mlhf_service.workers import machine, repository
from mlhf_service.workers.fitness import Fitness
from mlhf_service.workers.models import IDLE, STOPPING, TRAINING, UNFIT

log = logging.getLogger(__name__)

_LEAST_SECONDS = 0.5  # between two heartbeats, however often the state changes


@dataclass(frozen=True)
class Identity:
    """Who a worker is. Its id lives as long as its Celery process, whose pid this is."""

    id: str
    name: str
    queue: str
    pid: int


class Registration:
    """Writes this worker's row at each heartbeat, and soon after its state changes.

    ``device`` may be filled in later; what it holds is written at each heartbeat. A database that
    is away is waited for. The thread is a daemon of its own, so that neither
    training nor the files of a run delay it.
    """

    def __init__(
        self,
        settings: Settings,
        database: Database,
        identity: Identity,
        device: dict[str, Any],
        fitness: Fitness,
        stopping: Callable[[], bool] = lambda: False,
        datasets: Callable[[], list[str] | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._database = database
        self._identity = identity
        self.fitness = fitness
        self._stopping = stopping
        self._device = device
        self._datasets = datasets
        self._started_at = now()
        self._run_id: str | None = None
        self._changed = threading.Event()
        self._end = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        self._thread = threading.Thread(target=self._loop, name="heartbeat", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the heartbeat, and leave the table."""
        self._end.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        try:
            with self._database.write() as session:
                repository.remove(session, self._identity.id)
        except SQLAlchemyError as error:  # the sweeper forgets it later
            log.warning("worker not signed off: %s", type(error).__name__)

    @contextmanager
    def training(self, run_id: str) -> Iterator[None]:
        """While this lasts, the worker trains that run."""
        self._run_id = run_id
        self._changed.set()
        try:
            yield
        finally:
            self._run_id = None
            self._changed.set()

    def notify(self) -> None:
        """The worker's fitness has changed: write it down soon."""
        self._changed.set()

    def beat(self) -> None:
        """Write the row once. Raises what the database raises."""
        with self._database.write() as session:
            repository.beat(session, self._row())

    def _row(self) -> dict[str, Any]:
        run_id, reason = self._run_id, self.fitness.reason
        if self._stopping():
            state = STOPPING
        elif run_id is not None:
            state = TRAINING
        else:
            state = IDLE if reason is None else UNFIT
        return {
            "id": self._identity.id,
            "name": self._identity.name[:100],
            "host": socket.gethostname()[:255],
            "pid": self._identity.pid,
            "queue": self._identity.queue,
            "version": mlhf.__version__,
            "device": dict(self._device),
            "memory_bytes": machine.memory_for_runs(self._settings),
            "cores": machine.cores(),
            "datasets": self._datasets(),
            "state": state,
            "reason": None if reason is None else reason[:1000],
            "run_id": run_id,
            "started_at": self._started_at,
        }

    def _loop(self) -> None:
        while not self._end.is_set():
            self._changed.clear()
            with suppress(OSError):  # a full disk is found by the checks
                self._settings.alive_file.touch()
            try:
                if self._run_id is None:
                    self.fitness.check()
                self.beat()
            except Exception as error:  # the next one says it
                log.warning("no heartbeat: %s: %s", type(error).__name__, error)
            if self._end.wait(_LEAST_SECONDS):
                return
            self._changed.wait(self._settings.heartbeat_seconds)
