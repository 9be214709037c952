"""One attempt at a claimed run: start the trainer, write down its events, stop it when asked."""

import errno
import logging
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

from mlhf.core.errors import SpecError
from mlhf.core.failures import explain
from mlhf.core.process import EXIT_CANNOT_WRITE
from mlhf_service import tracing
from mlhf_service.context import Context
from mlhf_service.database import Database, is_away
from mlhf_service.jobs.kinds.registry import KINDS
from mlhf_service.jobs.state import settle
from mlhf_service.queue.checkpoints import fall_back, with_whole_checkpoint
from mlhf_service.queue.finish import OF_THE_WORKER, OURS, Outcome, end_attempt
from mlhf_service.queue.ingest import Ingestor, StoredEvent
from mlhf_service.queue.lease_keeper import LeaseKeeper
from mlhf_service.queue.leases import Claim, FencedError, hold
from mlhf_service.queue.limits import TrainerLimits, over_time
from mlhf_service.queue.prepare import prepare
from mlhf_service.queue.spare import Spare
from mlhf_service.queue.trainer_process import TrainerProcess
from mlhf_service.queue.trainer_spans import TrainerSpans
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage, StorageUnavailable, Stored

log = logging.getLogger(__name__)

_TICK_SECONDS = 0.1
_WRITE_SECONDS = 1.0  # points are gathered this long; other events are written at once
_GATHERED = {"points", "progress"}  # but for an attempt's first
_TERMINAL_EVENTS = {"finished", "failed", "interrupted"}


class Attempt:
    """The life of one attempt. ``run`` returns when the attempt is over and written down."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        storage: Storage,
        claim: Claim,
        stopping: Callable[[], bool],
        spare: Spare | None = None,
    ) -> None:
        self.settings = settings
        self.database = database
        self.storage = storage
        self.claim = claim
        self.stopping = stopping
        name = f"{claim.run_id}-{claim.attempt}"
        self.trainer = TrainerProcess(
            settings.spool_dir / name, settings.logs_dir / "trainers" / f"{name}.log", spare
        )
        self.limits = TrainerLimits(settings, claim)
        self.ingestor = Ingestor(database, storage, claim, settings.lease_seconds)
        self.lease = LeaseKeeper(
            settings.database,
            claim,
            settings.lease_seconds,
            settings.heartbeat_seconds,
            on_lost=self.trainer.strike,
        )
        self._spans = TrainerSpans(tracing.current())
        self._unstored: deque[tuple[dict[str, Any], int]] = deque()
        self._pending: list[StoredEvent] = []
        self._offset = 0
        self._began = self._last_write = time.monotonic()
        self._over_time = False
        self._urgent = False
        self._gathered: set[str] = set()
        self._stop_requested_at: float | None = None
        self._terminal_event: dict[str, Any] | None = None

    def run(self) -> Outcome | None:
        """Train until the trainer has ended, or until the claim no longer holds.

        Returns how the attempt ended; None where another has the run by now.
        """
        try:
            with self.lease:
                outcome = self._trained()
                self._conclude(outcome)
            return outcome
        except FencedError as error:
            log.warning("fenced: %s; its trainer is ended", error)
            return None
        finally:
            self.trainer.kill()
            self.limits.remove()
            self.trainer.remove()

    def _trained(self) -> Outcome:
        """Train; what stops this worker, such as a full disk, ends its attempt and not the run."""
        try:
            return self._train()
        except FencedError:
            raise
        except Exception as error:
            log.exception("run %s: this worker cannot go on", self.claim.run_id)
            self.trainer.kill()
            # What is not the machine's comes of the run, or of a fault of ours that would meet
            # it on every worker: it counts, so that it ends.
            kind = "unfit" if isinstance(error, OSError) else "lost"
            return Outcome(kind, {}, f"the worker could not go on. {_reason(error)}")

    def _start(self) -> Outcome | None:
        """Start the trainer; returns how the attempt ended where it cannot be started."""
        try:
            self.claim = with_whole_checkpoint(
                self.database, self.storage, self.claim, self.settings.lease_seconds
            )
            with self.database.read() as session:
                prepared = prepare(self._context(session), self.claim)
            self.trainer.start(
                self.claim,
                prepared.config,
                prepared.files,
                self.settings.checkpoint_seconds,
                self.settings.data_cache,
                self.limits.wanted(),
            )
        except SpecError as error:
            detail = {"type": "spec", "title": "The run cannot start", "detail": error.message}
            return Outcome("failed", {"error": detail})
        except ImportError as error:
            return self._failure(explain(error).to_dict())
        return None

    def _started(self) -> Outcome | None:
        """Start the trainer, waiting for a database that is away."""
        while True:
            self.lease.check()
            try:
                return self._start()
            except (SQLAlchemyError, StorageUnavailable) as error:
                if not _is_away(error):
                    raise
                if self.stopping():
                    return Outcome("interrupted", {})
                log.warning("waiting to start: %s", type(error).__name__)
                time.sleep(min(1.0, self.settings.heartbeat_seconds))

    def _train(self) -> Outcome:
        if (ended_early := self._started()) is not None:
            return ended_early
        while True:
            self.lease.check()
            ended = self.trainer.exit_code() is not None  # before reading: nothing comes after
            self._gather()
            self._write(force=ended)
            if ended and not self._pending and not self._gather():
                return self._outcome()
            if not ended:
                self._enforce_stop()
                self.trainer.wait(_TICK_SECONDS)
            elif self._pending:
                time.sleep(_TICK_SECONDS)  # the database is away: the spool keeps the events

    def _gather(self) -> bool:
        """Take the trainer's new events; files that they name go into the store first.

        While the store is away, nothing that follows such an event is taken: it stays in the
        spool. Returns whether there was an event, taken or not.
        """
        self._unstored = self._unstored or deque(self.trainer.read())
        found = bool(self._unstored)
        while self._unstored:
            event, offset = self._unstored[0]
            try:
                self._pending.append(StoredEvent(event, self._store(event)))
            except StorageUnavailable as error:
                log.warning("run %s: its events wait in the spool. %s", self.claim.run_id, error)
                return found
            self._unstored.popleft()
            self._offset = offset
            self._spans.see(event)
            self._urgent = self._urgent or event["type"] not in self._gathered
            self._gathered = _GATHERED if event["type"] == "points" else self._gathered
            if event["type"] in _TERMINAL_EVENTS:
                self._terminal_event = event
        return found

    def _store(self, event: dict[str, Any]) -> Stored | None:
        if event["type"] not in ("checkpoint", "artifact"):
            return None
        source = self.trainer.folder / event["path"]
        key = f"runs/{self.claim.run_id}/{self.claim.attempt}/{source.name}"
        try:
            stored = self.storage.put(key, source)
        except FileNotFoundError:
            if event["type"] == "artifact" or source.exists():
                raise
            return None  # a newer checkpoint has replaced it meanwhile
        if stored.sha256 != event["sha256"]:
            raise OSError(errno.EIO, "a file changed while it was stored", source.name)
        return stored

    def _write(self, force: bool = False) -> None:
        """Write what is pending when it is time to."""
        due = time.monotonic() - self._last_write >= _WRITE_SECONDS
        if not self._pending or not (due or self._urgent or force):
            return
        self._last_write = time.monotonic()
        try:
            self.lease.desired = self.ingestor.apply(self._pending, self._offset)
        except SQLAlchemyError as error:
            if not is_away(error):
                raise
            log.warning("database away, events kept in the spool: %s", type(error).__name__)
            self._urgent = False  # try again after the usual wait
            return
        self._pending = []
        self._urgent = False

    def _enforce_stop(self) -> None:
        """Request a stop when one is wanted; kill a trainer that does not stop in time."""
        wanted = self.lease.desired in ("cancel", "pause")
        if wanted or self.stopping() or self._is_over_time():
            self._request_stop()
        if self._stop_requested_at is not None:
            waited = time.monotonic() - self._stop_requested_at
            if waited > self.settings.grace_seconds:
                log.warning("run %s did not stop in time: killed", self.claim.run_id)
                self.trainer.kill()

    def _is_over_time(self) -> bool:
        """Whether the run has held a worker for as long as the deployment allows."""
        held = time.monotonic() - self._began + self.claim.spent_seconds
        self._over_time = self._over_time or held > self.settings.max_wall_seconds
        return self._over_time

    def _request_stop(self) -> None:
        if self._stop_requested_at is None:
            self._stop_requested_at = time.monotonic()
            self.trainer.ask_to_stop()

    def _outcome(self) -> Outcome:
        event = self._terminal_event
        if self._over_time and (event is None or event["type"] == "interrupted"):
            return Outcome("failed", {"error": over_time(self.settings)})
        if event is not None and event["type"] == "failed":
            return self._failure(event["error"])
        if event is not None:
            return Outcome(event["type"], event)
        if self._stop_requested_at is not None:  # killed after the grace: like an interruption
            return Outcome("interrupted", {})
        code = self.trainer.exit_code()
        if self.limits.ran_out(code, self.trainer.log_path):
            return Outcome("failed", {"error": self.limits.error()})
        # A fault of the run would have been told: this is one of the installation or the disk.
        silent = code is not None and code > 0 and self._offset == 0
        kind = "unfit" if silent or code == EXIT_CANNOT_WRITE else "lost"
        return Outcome(kind, {}, self.trainer.describe_exit())

    def _failure(self, error: dict[str, Any]) -> Outcome:
        if error["type"] in OF_THE_WORKER:
            return Outcome("unfit", {}, self._with_log(error)["detail"])
        if error["type"] == "checkpoint" and self.claim.checkpoint is not None:
            return Outcome("bad checkpoint", {}, error["detail"])
        return Outcome("failed", {"error": self._with_log(error)})

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
            except (SQLAlchemyError, StorageUnavailable) as error:
                if not _is_away(error):
                    raise
                if self.stopping() and time.monotonic() - began > self.settings.grace_seconds:
                    raise  # the lease runs out and the run goes on from its checkpoint
                log.warning("waiting to end the run: %s", type(error).__name__)
                time.sleep(min(1.0, self.settings.heartbeat_seconds))

    def _end(self, outcome: Outcome) -> None:
        with self.database.write() as session:
            job, run = hold(session, self.claim, self.settings.lease_seconds)
            if outcome.kind == "bad checkpoint":
                fall_back(session, self.claim, outcome.reason)
            end_attempt(session, job, run, outcome, self.settings.max_attempts)
            if run.status == "succeeded":
                KINDS[run.kind].conclude(self._context(session), run)
            settle(session, job)

    def _context(self, session: Session) -> Context:
        return Context(session, self.settings, self.storage)


def _is_away(error: SQLAlchemyError | StorageUnavailable) -> bool:
    """Whether a server is away for a while: the same will work later."""
    return isinstance(error, StorageUnavailable) or is_away(error)


def _reason(error: Exception) -> str:
    """What to tell of an error of the worker's own."""
    if isinstance(error, SQLAlchemyError):
        return f"The database refused ({type(error).__name__})."
    return explain(error).detail
