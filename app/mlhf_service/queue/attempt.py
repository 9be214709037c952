"""One attempt at a claimed run: start the trainer, write down its events, stop it when asked."""

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mlhf.core.errors import SpecError
from mlhf.core.failures import explain
from mlhf_service.context import Context
from mlhf_service.database import Database
from mlhf_service.jobs.kinds.registry import KINDS
from mlhf_service.jobs.state import settle
from mlhf_service.queue.finish import OURS, Outcome, end_attempt
from mlhf_service.queue.ingest import Ingestor, StoredEvent
from mlhf_service.queue.leases import Claim, FencedError, hold
from mlhf_service.queue.prepare import prepare
from mlhf_service.queue.trainer_process import TrainerProcess
from mlhf_service.runs import curve_files
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage, Stored

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_WRITE_SECONDS = 1.0  # points are gathered this long; other events are written at once
_GATHERED = {"points", "progress"}
_TERMINAL_EVENTS = {"finished", "failed", "interrupted"}


class Attempt:
    """The life of one attempt. ``run`` returns when the attempt is over and written down."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        storage: FolderStorage,
        claim: Claim,
        stopping: Callable[[], bool],
    ) -> None:
        self.settings = settings
        self.database = database
        self.storage = storage
        self.claim = claim
        self.stopping = stopping
        name = f"{claim.run_id}-{claim.attempt}"
        self.trainer = TrainerProcess(
            settings.spool_dir / name, settings.logs_dir / "trainers" / f"{name}.log"
        )
        self.ingestor = Ingestor(database, storage, claim, settings.lease_seconds)
        self._pending: list[StoredEvent] = []
        self._offset = 0
        self._last_write = time.monotonic()
        self._urgent = False
        self._stop_requested_at: float | None = None
        self._terminal_event: dict[str, Any] | None = None

    def run(self) -> None:
        """Train until the trainer has ended, or until the claim no longer holds."""
        try:
            self._conclude(self._trained())
        except FencedError as error:
            log.warning("fenced: %s; its trainer is ended", error)
        finally:
            self.trainer.kill()
            self.trainer.remove()

    def _trained(self) -> Outcome:
        """Train; what stops this worker, such as a full disk, ends its attempt and not the run."""
        try:
            return self._train()
        except OSError as error:
            log.exception("run %s: this worker cannot go on", self.claim.run_id)
            self.trainer.kill()
            return Outcome("lost", {}, f"the worker could not go on. {explain(error).detail}")

    def _start(self) -> Outcome | None:
        """Start the trainer; returns how the attempt ended where it cannot be started."""
        try:
            with self.database.read() as session:
                prepared = prepare(self._context(session), self.claim)
            self.trainer.start(
                self.claim, prepared.config, prepared.files, self.settings.checkpoint_seconds
            )
        except SpecError as error:
            detail = {"type": "spec", "title": "The run cannot start", "detail": error.message}
            return Outcome("failed", {"error": detail})
        except (FileNotFoundError, ImportError) as error:
            log.exception("run %s cannot start", self.claim.run_id)
            return Outcome("failed", {"error": explain(error).to_dict()})
        return None

    def _train(self) -> Outcome:
        if (ended_early := self._start()) is not None:
            return ended_early
        # While the trainer imports torch, not after it has ended; and beside us, for the lease
        # is renewed meanwhile: importing what draws takes long on a busy machine.
        warm_up = threading.Thread(target=curve_files.warm_up, name="warm-up", daemon=True)
        warm_up.start()
        while True:
            ended = self.trainer.exit_code() is not None  # before reading: nothing comes after
            self._gather()
            self._write(force=ended)
            if ended and not self._pending and not self._gather():
                self._wait_for(warm_up)
                return self._outcome()
            if not ended:
                self._enforce_stop()
                time.sleep(_TICK_SECONDS)
            elif self._pending:
                time.sleep(_TICK_SECONDS)  # the database is away: the spool keeps the events

    def _wait_for(self, thread: threading.Thread) -> None:
        """Renew the lease until a thread has ended."""
        while thread.is_alive():
            thread.join(self.settings.heartbeat_seconds)
            self._write()

    def _gather(self) -> bool:
        """Take the trainer's new events; files that they name go into the store first."""
        events = self.trainer.read()
        for event, offset in events:
            self._pending.append(StoredEvent(event, self._store(event)))
            self._offset = offset
            self._urgent = self._urgent or event["type"] not in _GATHERED
            if event["type"] in _TERMINAL_EVENTS:
                self._terminal_event = event
        return bool(events)

    def _store(self, event: dict[str, Any]) -> Stored | None:
        if event["type"] not in ("checkpoint", "artifact"):
            return None
        source = self.trainer.folder / event["path"]
        key = f"runs/{self.claim.run_id}/{self.claim.attempt}/{source.name}"
        try:
            stored = self.storage.put(key, source)
        except FileNotFoundError:
            return None  # a newer checkpoint has replaced it meanwhile
        if stored.sha256 != event["sha256"]:
            log.error("run %s: %s changed while it was stored", self.claim.run_id, source.name)
            return None
        return stored

    def _write(self, force: bool = False) -> None:
        """Write what is pending, or renew the lease, when it is time to."""
        waited = time.monotonic() - self._last_write
        due = waited >= (_WRITE_SECONDS if self._pending else self.settings.heartbeat_seconds)
        if not (due or self._urgent or force):
            return
        self._last_write = time.monotonic()
        try:
            desired = self.ingestor.apply(self._pending, self._offset)
        except SQLAlchemyError as error:
            log.warning("database away, events kept in the spool: %s", type(error).__name__)
            self._urgent = False  # try again after the usual wait
            return
        self._pending = []
        self._urgent = False
        if desired in ("cancel", "pause"):
            self._request_stop()

    def _enforce_stop(self) -> None:
        """Request a stop when the worker shuts down; kill a trainer that does not stop in time."""
        if self.stopping():
            self._request_stop()
        if self._stop_requested_at is not None:
            waited = time.monotonic() - self._stop_requested_at
            if waited > self.settings.grace_seconds:
                log.warning("run %s did not stop in time: killed", self.claim.run_id)
                self.trainer.kill()

    def _request_stop(self) -> None:
        if self._stop_requested_at is None:
            self._stop_requested_at = time.monotonic()
            self.trainer.ask_to_stop()

    def _outcome(self) -> Outcome:
        event = self._terminal_event
        if event is not None and event["type"] == "failed":
            return Outcome("failed", {"error": self._with_log(event["error"])})
        if event is not None:
            return Outcome(event["type"], event)
        if self._stop_requested_at is not None:  # killed after the grace: like an interruption
            return Outcome("interrupted", {})
        return Outcome("lost", {}, self.trainer.describe_exit())

    def _with_log(self, error: dict[str, Any]) -> dict[str, Any]:
        """A failure that is not the job's, with where its stack trace is."""
        if error["type"] not in OURS:
            return error
        log_path = self.trainer.log_path.relative_to(self.settings.root)
        where = f"The log is {log_path} in the data folder of the worker."
        return {**error, "detail": f"{error['detail']} {where}"}

    def _conclude(self, outcome: Outcome) -> None:
        """Write the end of the attempt, however long the database takes to come back."""
        began = time.monotonic()
        while True:
            try:
                self._end(outcome)
                return
            except SQLAlchemyError as error:
                if self.stopping() and time.monotonic() - began > self.settings.grace_seconds:
                    raise  # the lease runs out and the run goes on from its checkpoint
                log.warning("database away, waiting to end the run: %s", type(error).__name__)
                time.sleep(min(1.0, self.settings.heartbeat_seconds))

    def _end(self, outcome: Outcome) -> None:
        files: list[tuple[str, str, Stored]] = []
        if outcome.kind in ("finished", "failed"):
            files = self._rendered_files(outcome)
        with self.database.write() as session:
            job, run = hold(session, self.claim, self.settings.lease_seconds)
            for name, content_type, stored in files:
                kind = name.partition(".")[0]  # such as curves or ablation
                self.ingestor.add_artifact(session, name, kind, stored, content_type)
            end_attempt(session, job, run, outcome, self.settings.max_attempts)
            if run.status == "succeeded":
                KINDS[run.kind].conclude(self._context(session), run)
            settle(session, job)

    def _context(self, session: Session) -> Context:
        return Context(session, self.settings, self.storage)

    def _rendered_files(self, outcome: Outcome) -> list[tuple[str, str, Stored]]:
        """The files made of its curves, and those of its kind."""
        with self.database.read() as session:
            try:
                run = session.get_one(Run, self.claim.run_id)
                diverged = outcome.event.get("status") == "diverged"
                rendered = curve_files.render_all(session, run, diverged)
                if outcome.kind == "finished":
                    rendered |= KINDS[run.kind].files_of(session, run, diverged)
                prefix = f"runs/{self.claim.run_id}/{self.claim.attempt}"
                return [
                    (name, content_type, self.storage.put(f"{prefix}/{name}", content))
                    for name, (content_type, content) in rendered.items()
                ]
            except SQLAlchemyError:
                raise
            except Exception:  # a picture that cannot be drawn does not undo a training
                log.exception("run %s: the files of its curve could not be made", self.claim.run_id)
                return []
