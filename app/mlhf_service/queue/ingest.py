"""Write a trainer's events to the database: whole batches, fenced, each exactly once."""

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from mlhf_service import measures
from mlhf_service.database import Database
from mlhf_service.deletions import files
from mlhf_service.jobs.journal import add_event
from mlhf_service.queue.leases import Claim, extend, hold
from mlhf_service.runs import chunks
from mlhf_service.runs import repository as runs
from mlhf_service.runs.blocks import Block
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.storage.protocol import Storage, Stored
from mlhf_service.webhooks.events import check_metrics

log = logging.getLogger(__name__)

Event = dict[str, Any]
KEPT_CHECKPOINTS = 2
_LONG = 0.05  # of a lease: a write that took longer renews it once more
_BYTES = "application/octet-stream"


@dataclass(frozen=True)
class StoredEvent:
    """An event, and the file in the store that it names, if any."""

    event: Event
    file: Stored | None = None


class Ingestor:
    """Writes for one claim. Every call is one transaction, fenced by the claim's lease."""

    def __init__(
        self, database: Database, storage: Storage, claim: Claim, lease_seconds: float
    ) -> None:
        self._database = database
        self._storage = storage
        self._claim = claim
        self._lease = lease_seconds

    def apply(self, batch: Sequence[StoredEvent], offset: int | None = None) -> str | None:
        """Write a batch and renew the lease; an empty one is a heartbeat.

        Args:
            batch: Events in the order they happened.
            offset: How many bytes of the spool these events reach to; stored with them.

        Returns:
            What the user has requested: ``"cancel"``, ``"pause"`` or None.

        Raises:
            FencedError: The claim no longer holds. Nothing was written.
        """
        pruned = False
        began = time.monotonic()
        with self._database.write() as session, session.no_autoflush:
            job, run = hold(session, self._claim, self._lease)
            points: list[dict[str, Any]] = []
            for stored in batch:
                self._one(session, run, stored, points)
            if points:
                self._write_points(session, run, points)
                said = {"id": run.id, "job_id": run.job_id, "name": run.name}
                check_metrics(session, run.tenant, said, points)
            if any(stored.event["type"] == "checkpoint" for stored in batch):
                session.flush()
                pruned = self._prune(session)
            if offset is not None:
                run.spool_offset = offset
            desired = job.desired
            session.flush()
            if time.monotonic() - began > _LONG * self._lease:
                extend(session, self._claim, self._lease)
        _measure(batch)
        if pruned:
            files.drain_soon(self._database, self._storage, limit=4)  # the lease waits
        return desired

    def _one(
        self, session: Session, run: Run, stored: StoredEvent, points: list[dict[str, Any]]
    ) -> None:
        event, file = stored.event, stored.file
        match event["type"]:
            case "points":
                points.extend(event["points"])
            case "progress":
                run.progress = {k: v for k, v in event.items() if k not in ("type", "at")}
            case "started":
                run.environment = event["environment"]
                run.data_info = event.get("data") or run.data_info
                step = event.get("resumed_from_step", 0)
                where = f"from step {step}" if step else "from the beginning"
                self._log(session, "info", f"attempt {run.attempt} trains {where}")
            case "checkpoint" if file is not None:
                name = f"checkpoint-{event['step']:09d}.safetensors"
                runs.record_file(session, run.id, name, "checkpoint", file, _BYTES, event["step"])
                resumed = self._claim.checkpoint.step if self._claim.checkpoint else 0
                if event["step"] > resumed:  # it gets on: what befell it before counts no more
                    run.failures = run.worker_faults = 0
            case "artifact" if file is not None:
                name = event["name"]
                kind = name.partition(".")[0]  # model, config or meta_checkpoint
                runs.record_file(session, run.id, name, kind, file, event["content_type"])
            case "log":
                self._log(session, event["level"], event["message"])
            case "finished":
                run.totals = event["totals"]
                run.summary = event["summary"]

    def _log(self, session: Session, level: str, message: str) -> None:
        data = {"run_id": self._claim.run_id, "level": level, "message": message}
        add_event(session, self._claim.job_id, "log", data)

    def _write_points(self, session: Session, run: Run, points: list[dict[str, Any]]) -> None:
        block = Block.of_points(points)
        run.summary = block.summarize(run.summary or {})
        chunks.append(session, run.id, self._claim.attempt, block)
        # Of the many steps only the last is streamed; of evaluations every one.
        shown = [p for p in points[:-1] if _is_evaluation(p)] + points[-1:]
        data = {"run_id": run.id, "points": shown, "progress": run.progress}
        add_event(session, run.job_id, "metrics", data)

    def _prune(self, session: Session) -> bool:
        """Forget all but the last checkpoints; returns whether there are files to delete."""
        rows = session.scalars(
            select(Artifact)
            .where(Artifact.run_id == self._claim.run_id, Artifact.kind == "checkpoint")
            .order_by(Artifact.step.desc())
            .offset(KEPT_CHECKPOINTS)
        )
        keys = []
        for row in rows:
            keys.append(row.storage_key)
            session.delete(row)
        files.enqueue(session, keys)
        return bool(keys)


def _measure(batch: Sequence[StoredEvent]) -> None:
    for stored in batch:
        measures.EVENTS.labels(stored.event["type"]).inc()
    if batch and isinstance(at := batch[0].event.get("at"), int | float):
        measures.INGEST_LAG_SECONDS.observe(max(0.0, time.time() - at))


def _is_evaluation(point: dict[str, Any]) -> bool:
    return "train_loss" in point["values"] or "test_loss" in point["values"]
