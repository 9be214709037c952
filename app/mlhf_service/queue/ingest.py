"""Write a trainer's events to the database: whole batches, fenced, each exactly once."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from mlhf.core import metrics
from mlhf_service.database import Database, now
from mlhf_service.jobs import repository as jobs
from mlhf_service.queue.leases import Claim, hold
from mlhf_service.runs.models import Artifact, Point, Run
from mlhf_service.storage.folder import FolderStorage, Stored

log = logging.getLogger(__name__)

Event = dict[str, Any]
KEPT_CHECKPOINTS = 2
_CHUNK = 500  # rows an INSERT: within the parameter limits of both databases


@dataclass(frozen=True)
class StoredEvent:
    """An event, and the file in the store that it names, if any."""

    event: Event
    file: Stored | None = None


class Ingestor:
    """Writes for one claim. Every call is one transaction, fenced by the claim's lease."""

    def __init__(
        self, database: Database, storage: FolderStorage, claim: Claim, lease_seconds: float
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
        garbage: list[str] = []
        with self._database.write() as session:
            job, run = hold(session, self._claim, self._lease)
            points: list[dict[str, Any]] = []
            for stored in batch:
                self._one(session, run, stored, points)
            if points:
                self._write_points(session, run, points)
            if any(stored.event["type"] == "checkpoint" for stored in batch):
                session.flush()
                garbage = self._prune(session)
            if offset is not None:
                run.spool_offset = offset
            desired = job.desired
        for key in garbage:
            self._storage.delete(key)
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
                self.add_artifact(session, name, "checkpoint", file, step=event["step"])
            case "artifact" if file is not None:
                name = event["name"]
                kind = name.partition(".")[0]  # model, config or meta_checkpoint
                self.add_artifact(session, name, kind, file, event["content_type"])
            case "log":
                self._log(session, event["level"], event["message"])
            case "finished":
                run.totals = event["totals"]
                run.summary = event["summary"]

    def add_artifact(
        self,
        session: Session,
        name: str,
        kind: str,
        stored: Stored,
        content_type: str = "application/octet-stream",
        step: int | None = None,
    ) -> None:
        session.merge(
            Artifact(
                run_id=self._claim.run_id,
                name=name,
                kind=kind,
                step=step,
                content_type=content_type,
                size=stored.size,
                sha256=stored.sha256,
                storage_key=stored.key,
                created_at=now(),
            )
        )

    def _log(self, session: Session, level: str, message: str) -> None:
        data = {"run_id": self._claim.run_id, "level": level, "message": message}
        jobs.add_event(session, self._claim.job_id, "log", data)

    def _write_points(self, session: Session, run: Run, points: list[dict[str, Any]]) -> None:
        rows = [
            {
                "run_id": run.id,
                "metric": metric,
                "step": point["step"],
                "samples": point["samples"],
                "epoch": point["epoch"],
                "wall_seconds": point["wall_seconds"],
                "cpu_seconds": point.get("cpu_seconds"),
                # JSON has no NaN: what is not finite comes as a string.
                "value": None if isinstance(value, str) else value,
                "nonfinite": value if isinstance(value, str) else None,
            }
            for point in points
            for metric, value in point["values"].items()
        ]
        for start in range(0, len(rows), _CHUNK):
            upsert(session, rows[start : start + _CHUNK])
        run.summary = summarize(run.summary or {}, points)
        # Of the many steps only the last is streamed; of evaluations every one.
        shown = [p for p in points[:-1] if _is_evaluation(p)] + points[-1:]
        data = {"run_id": run.id, "points": shown, "progress": run.progress}
        jobs.add_event(session, run.job_id, "metrics", data)

    def _prune(self, session: Session) -> list[str]:
        """Forget all but the last checkpoints; returns the keys of their files."""
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
        return keys


def upsert(session: Session, rows: list[dict[str, Any]]) -> None:
    """Write points; one that is written again replaces itself and is never doubled."""
    sqlite_backend = session.get_bind().dialect.name == "sqlite"
    dialect: Any = sqlite if sqlite_backend else postgresql
    unique = {(row["metric"], row["step"]): row for row in rows}  # one INSERT hits a row once
    statement = dialect.insert(Point).values(list(unique.values()))
    columns = ("samples", "epoch", "wall_seconds", "cpu_seconds", "value", "nonfinite")
    session.execute(
        statement.on_conflict_do_update(
            index_elements=["run_id", "metric", "step"],
            set_={name: statement.excluded[name] for name in columns},
        )
    )


def summarize(summary: dict[str, Any], points: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the summary of each metric with these points' values in it."""
    result = dict(summary)
    for point in points:
        for metric, value in point["values"].items():
            number = metrics.parse_number(value)
            known = metrics.summarize(result.get(metric), metric, number, point["step"])
            result[metric] = {**known, "last": value}
    return result


def _is_evaluation(point: dict[str, Any]) -> bool:
    return "train_loss" in point["values"] or "test_loss" in point["values"]
