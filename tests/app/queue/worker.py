"""A worker in the test's own process, with real trainers and ways to disturb them."""

import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mlhf.core.metrics import json_number
from mlhf.core.process import TRAINER
from mlhf_service.database import Database
from mlhf_service.jobs.models import JobEvent
from mlhf_service.queue.attempt import Attempt
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.spare import Spare
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from tests.app.stored_points import stored_points
from tests.waiting import until


class Service:
    """A worker in this process, and eyes on what it leaves."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        storage: FolderStorage,
        spare: Spare | None = None,
    ) -> None:
        self.settings, self.database, self.storage = settings, database, storage
        self.spare = spare
        self.stopping = False

    def work(self) -> Attempt:
        """Claim the next run and train it to the end of this attempt."""
        claim = claim_next(self.database, "cpu", "test", self.settings.lease_seconds)
        assert claim is not None
        attempt = Attempt(
            self.settings,
            self.database,
            self.storage,
            claim,
            lambda: self.stopping,
            self.spare,
        )
        attempt.run()
        return attempt

    def when_checkpointed(self, act: Callable[[int], None], go_on: bool = True) -> threading.Thread:
        """Call ``act(trainer's pid)`` in the middle of a run, its first checkpoint committed.

        A checkpoint before the first step, as a slow start makes one due, does not count. The
        trainer is held still from its first checkpoint on, so that it cannot end before
        its worker has written that down, however fast it is and however slow the machine.
        """

        def wait() -> None:
            spool = self.settings.spool_dir
            until(
                lambda: _checkpoint_files(spool) and trainers(),
                "no trainer has written a checkpoint",
            )
            (pid, *_) = trainers()
            os.kill(pid, signal.SIGSTOP)
            while True:
                with suppress(AssertionError):
                    until(self._checkpoint_written, "not yet", seconds=0.5)
                    break
                # It may be held between the file and the event: a moment more.
                os.kill(pid, signal.SIGCONT)
                time.sleep(0.01)
                os.kill(pid, signal.SIGSTOP)
            act(pid)
            if go_on:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGCONT)

        thread = threading.Thread(target=wait)
        thread.start()
        return thread

    def _checkpoint_written(self) -> bool:
        return any(a.kind == "checkpoint" and (a.step or 0) > 0 for a in self.all(Artifact))

    def all(self, table: Any) -> list[Any]:
        with self.database.read() as session:
            return list(session.query(table))

    def run(self, run_id: str | None = None) -> Run:
        return next(r for r in self.all(Run) if run_id in (None, r.id))

    def log(self, run_id: str) -> list[str]:
        events = [e.data for e in self.all(JobEvent) if e.type == "log"]
        return [data["message"] for data in events if data["run_id"] == run_id]

    def weights(self, run_id: str) -> str:
        return next(
            a.sha256
            for a in self.all(Artifact)
            if a.run_id == run_id and a.name == "model.safetensors"
        )

    def curve(self, run_id: str, metric: str = "batch_loss") -> dict[int, Any]:
        rows = [p for p in stored_points(self.database, run_id) if p.metric == metric]
        assert len(rows) == len({p.step for p in rows})
        return {p.step: json_number(p.value) for p in rows}


def _checkpoint_files(spool: Path) -> list[Path]:
    found = spool.glob("*/checkpoints/step-*.safetensors")
    return [path for path in found if int(path.stem.removeprefix("step-")) > 0]


def trainers() -> list[int]:
    """Processes of the engine that were started by this one."""
    children = f"/proc/{os.getpid()}/task/{os.getpid()}/children"
    with open(children) as file:
        pids = [int(pid) for pid in file.read().split()]
    found = []
    for pid in pids:
        try:
            with open(f"/proc/{pid}/comm") as file:
                if file.read().strip() == TRAINER:
                    found.append(pid)
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
