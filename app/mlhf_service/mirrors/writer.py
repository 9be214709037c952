"""Write runs through to an MLflow server while they train.

A server that is away, or refuses, is a warning in the log: no run waits for it or fails by it.
What it missed is written once it answers.
"""

import csv
import io
import logging
import threading
from collections.abc import Iterator, Mapping

from mlhf_service.client.errors import ServiceError
from mlhf_service.client.mlflow import MOST_POINTS, Mlflow
from mlhf_service.client.records import Run as RunRecord
from mlhf_service.database import Database
from mlhf_service.kit.ids import new_id
from mlhf_service.mirrors import repository
from mlhf_service.runs import curve_files, reading
from mlhf_service.runs import repository as run_rows
from mlhf_service.runs import service as runs
from mlhf_service.runs.status import TERMINAL
from mlhf_service.settings import Settings

log = logging.getLogger(__name__)

EVERY_SECONDS = 5.0  # a run that trains is looked at
_TAKEN_SECONDS = 300.0  # longer than a run takes to be written: then its writer has died
_AT_ONCE = 20
_LONGEST_WAIT = 600.0
_LOCAL = "local"


class MlflowWriter:
    """Writes from a thread. Any number of processes may: each takes its own runs.

    Without an address in the settings it does nothing.
    """

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._since = new_id("run")  # earlier ones are for `mlhf mlflow`
        self._server: Mlflow | None = None
        self._away = 0  # passes in a row that found no server
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._loop, name="mlflow", daemon=True)

    def start(self) -> None:
        if self._settings.mlflow_url:
            self._thread.start()

    def stop(self) -> None:
        """Begin no more; what is being written ends by itself, or is written again."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(timeout=5)

    def _loop(self) -> None:
        while not self._stop.is_set():
            try:
                self.write_due()
            except Exception as error:
                log.warning("mlflow waits: %s: %s", type(error).__name__, error)
            self._stop.wait(min(_LONGEST_WAIT, EVERY_SECONDS * 2 ** min(self._away, 10)))

    def write_due(self) -> int:
        """One pass over what is due. Returns how many runs were written."""
        with self._database.write() as session:
            repository.enlist(session, self._since)
        with self._database.read() as session:
            found = repository.due(session, _AT_ONCE)
        done = 0
        for run_id in found:
            if self._stop.is_set():
                break
            with self._database.write() as session:
                taken = repository.take(session, run_id, _TAKEN_SECONDS)
            if taken:
                done += self._guarded(run_id)
                if self._away:
                    break
        return done

    def _guarded(self, run_id: str) -> bool:
        try:
            written = self._write(run_id)
        except ServiceError as error:
            self._failed(run_id, error)
            return False
        if self._away:
            log.warning("MLflow at %s answers again", self._address)
            self._away = 0
        return written

    def _write(self, run_id: str) -> bool:
        with self._database.read() as session:
            row = run_rows.get(session, run_id)
            if row is None:
                return False
            before = repository.written(session, run_id)
            record, tenant = _record(runs.view(session, row).model_dump(mode="json")), row.tenant
        if tenant != _LOCAL:
            record["project"] = f"{tenant}/{record['project']}"
        present = f"{record.status} {(record['progress'] or {}).get('step', 0)}"
        ended = record.status in TERMINAL
        if present != before or ended:
            self._connected().write(record, lambda after: self._points(run_id, after))
        with self._database.write() as session:
            state = {"failures": 0, "written": present, "done": ended}
            repository.put_back(session, run_id, EVERY_SECONDS, **state)
        return True

    def _failed(self, run_id: str, error: ServiceError) -> None:
        """Most answers of 4xx are about this run; all else is about the server."""
        refused = error.status is not None and 400 <= error.status < 500
        refused = refused and error.status not in (401, 403, 429)
        with self._database.write() as session:
            failures = repository.failures(session, run_id) + 1 if refused else 0
            seconds = min(_LONGEST_WAIT, EVERY_SECONDS * 2 ** min(failures, 10))
            repository.put_back(session, run_id, seconds, failures=failures)
        if refused:
            log.warning("run %s is not in MLflow: %s. It is tried again", run_id, error)
            return
        if not self._away:
            log.warning("%s. Runs go on, and are written once it answers", error)
        self._away += 1

    def _points(self, run_id: str, after: int | None) -> Iterator[Mapping[str, str]]:
        first = None if after is None else after + 1
        with self._database.read() as session:
            found = reading.read(session, run_id, None, MOST_POINTS, (first, None))
        text = b"".join(curve_files.csv_pieces(found)).decode()
        yield from csv.DictReader(io.StringIO(text))

    def _connected(self) -> Mlflow:
        if self._server is None:
            experiment = self._settings.mlflow_experiment or None
            self._server = Mlflow(self._settings.mlflow_url, experiment)
        return self._server

    @property
    def _address(self) -> str:
        return self._connected().address


def _record(view: Mapping[str, object]) -> RunRecord:
    return RunRecord(dict(view))
