"""Networks that are checked on a worker's machine, for an API that has no torch.

The API puts the files into the store, and a row into ``network_checks``; a supervisor of workers
takes the row, checks the files by an ``Examiner`` of its own, and writes the answer into it. The
request waits for that, and deletes the row. As with runs, the database is the queue: a supervisor
that dies leaves a row that another takes when its time has run out.
"""

import logging
import threading
import time
from typing import Any

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import SQLAlchemyError

from mlhf.core.errors import DataError
from mlhf_service.database import Database, db_now
from mlhf_service.kit.ids import new_id
from mlhf_service.networks.examiner import Bounds, Examiner, ExaminerLostError
from mlhf_service.networks.models import NetworkCheck
from mlhf_service.networks.service import files_of
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from mlhf_service.storage.protocol import Storage
from mlhf_service.workers import repository as workers

log = logging.getLogger(__name__)

_POLL_SECONDS = 0.1  # of the request that waits
_TAKEN_WITHIN_SECONDS = 30.0
_SLACK_SECONDS = 150.0  # beyond the check's own: files are copied, and torch may be imported
_THREADS = 2  # checks at once, of one supervisor
_ABANDONED_SECONDS = 3600.0


def ask(
    database: Database, key: str, weights: bool, bounds: Bounds, lease_seconds: float
) -> dict[str, Any]:
    """Have a worker's machine check the files under a key of the store; return the answer.

    Args:
        key: Of the folder.
        weights: Whether there are any.
        lease_seconds: Workers that were not seen for so long are not there.

    Raises:
        ExaminerLostError: no worker is there, none takes it, or its machine cannot check it.
    """
    identity = new_id("chk")
    with database.write() as session:
        if not workers.alive(session, lease_seconds):
            raise ExaminerLostError("the API has no torch, and there is no worker to ask")
        row = {
            "id": identity,
            "storage_key": key,
            "weights": weights,
            "memory_bytes": bounds.memory_bytes,
            "seconds": bounds.seconds,
        }
        session.execute(_insert(row))
    try:
        return _answer(database, identity, bounds)
    finally:
        with database.write() as session:
            session.execute(delete(NetworkCheck).where(NetworkCheck.id == identity))


def _insert(row: dict[str, Any]) -> Any:
    return insert(NetworkCheck).values({**row, "asked_at": db_now()})


def _answer(database: Database, identity: str, bounds: Bounds) -> dict[str, Any]:
    began = time.monotonic()
    columns = NetworkCheck.answer, NetworkCheck.taken_by
    while (waited := time.monotonic() - began) < bounds.seconds + _SLACK_SECONDS:
        with database.read() as session:
            row = session.execute(select(*columns).where(NetworkCheck.id == identity)).one()
        answer: dict[str, Any] | None = row[0]
        if answer is not None:
            if "lost" in answer:
                raise ExaminerLostError(answer["lost"])
            return answer
        if row[1] is None and waited > _TAKEN_WITHIN_SECONDS:
            raise ExaminerLostError("the API has no torch, and no worker takes the check")
        time.sleep(_POLL_SECONDS if waited < 5.0 else 5 * _POLL_SECONDS)
    raise ExaminerLostError("the API has no torch, and the worker that took the check is silent")


class Checker:
    """Takes checks and carries them out, beside the workers of one supervisor."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings, self._database = settings, database
        self._storage: Storage = open_storage(settings)
        self._examiner = Examiner(settings, settings.root)
        self._name = new_id("chk")
        self._stop = threading.Event()
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        """Begin to look for checks."""
        for number in range(_THREADS):
            name = f"network-checker-{number + 1}"
            self._threads.append(threading.Thread(target=self._loop, name=name, daemon=True))
            self._threads[-1].start()

    def stop(self) -> None:
        """End; what was taken is left to others."""
        self._stop.set()
        self._examiner.stop()
        for thread in self._threads:
            thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                if self.check_one():
                    continue
                self._examiner.stop_if_idle(self._settings.examiner_idle_seconds)
            except (SQLAlchemyError, OSError) as error:
                log.warning("a check of a network failed: %s: %s", type(error).__name__, error)
            self._stop.wait(self._settings.poll_seconds)

    def check_one(self) -> bool:
        """Carry out the check that has waited longest; returns whether there was one."""
        row = self._taken()
        if row is None:
            return False
        answer = self._checked(row)
        if self._stop.is_set() and "lost" in answer:
            return True  # it may be that only we are stopping
        own = NetworkCheck.id == row.id, NetworkCheck.taken_by == self._name
        with self._database.write() as session:
            session.execute(update(NetworkCheck).where(*own).values(answer=answer))
        return True

    def _taken(self) -> NetworkCheck | None:
        open_ = (
            NetworkCheck.answer.is_(None),
            or_(NetworkCheck.taken_until.is_(None), NetworkCheck.taken_until < db_now()),
        )
        first = select(NetworkCheck.id).where(*open_).order_by(NetworkCheck.asked_at).limit(1)
        with self._database.read() as session:  # most times nothing waits, and nothing is locked
            identity = session.scalar(first)
        if identity is None:
            return None
        own = NetworkCheck.id == identity
        until = db_now() + NetworkCheck.seconds + _SLACK_SECONDS
        with self._database.write() as session:
            abandoned = NetworkCheck.asked_at < db_now() - _ABANDONED_SECONDS
            session.execute(delete(NetworkCheck).where(abandoned))
            taking = update(NetworkCheck).where(own, *open_)
            session.execute(
                taking.values(taken_by=self._name, taken_until=until).execution_options(
                    synchronize_session=False
                )
            )
            taken = NetworkCheck.taken_by == self._name
            return session.scalar(select(NetworkCheck).where(own, taken))

    def _checked(self, row: NetworkCheck) -> dict[str, Any]:
        bounds = Bounds(row.memory_bytes, row.seconds)
        try:
            graph, weights = files_of(self._storage, row.storage_key, row.weights)
            return self._examiner.ask(graph, weights, bounds)
        except DataError as error:
            return {"data": str(error)}
        except (ExaminerLostError, OSError) as error:
            return {"lost": f"on the worker's machine: {error}"}
