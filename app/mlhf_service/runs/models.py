"""Tables of runs: one training each, with its lease, its curve and its artifacts."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime


class Run(Base):
    """One training run: the unit a worker claims, leases and fences.

    ``attempt`` grows with each claim; every write of a trainer carries it, and a stale
    one is refused. ``lease_expires_at`` and ``available_at`` are seconds since 1970 by
    the database's clock.
    """

    __tablename__ = "runs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    position: Mapped[int] = mapped_column(Integer)
    name: Mapped[str] = mapped_column(String(250))
    kind: Mapped[str] = mapped_column(String(20), default="train")  # one of jobs.kinds
    status: Mapped[str] = mapped_column(String(20))
    config: Mapped[dict[str, Any]] = mapped_column(JSON)
    model: Mapped[str] = mapped_column(String(100))
    dataset: Mapped[str] = mapped_column(String(100))
    optimizer: Mapped[str] = mapped_column(String(100))
    seed: Mapped[int] = mapped_column(BigInteger)
    # What a learned optimizer uses; fixed when the job was made.
    meta_checkpoint_id: Mapped[str | None] = mapped_column(String(40), index=True)

    queue: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    failures: Mapped[int] = mapped_column(Integer, default=0)  # attempts that ended by a fault
    lease_owner: Mapped[str | None] = mapped_column(String(200))
    lease_expires_at: Mapped[float | None] = mapped_column(Float(53))
    available_at: Mapped[float] = mapped_column(Float(53), default=0.0)
    spool_offset: Mapped[int] = mapped_column(BigInteger, default=0)

    progress: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    environment: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    data_info: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    summary: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    totals: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    __table_args__ = (
        Index(None, "job_id", "position", unique=True),
        Index(None, "status", "queue", "available_at"),
    )


class Point(Base):
    """One value of one metric at one step; the key makes a doubled point impossible."""

    __tablename__ = "points"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    metric: Mapped[str] = mapped_column(String(64), primary_key=True)
    step: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    samples: Mapped[int] = mapped_column(BigInteger)
    epoch: Mapped[float] = mapped_column(Float(53))
    wall_seconds: Mapped[float] = mapped_column(Float(53))
    cpu_seconds: Mapped[float | None] = mapped_column(Float(53))  # null: not counted
    value: Mapped[float | None] = mapped_column(Float(53))
    # SQLite stores NaN as NULL: what is not finite is kept by name.
    nonfinite: Mapped[str | None] = mapped_column(String(10))


class Artifact(Base):
    """A file that a run wrote: model, configuration, curves, or a checkpoint to resume from."""

    __tablename__ = "artifacts"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    name: Mapped[str] = mapped_column(String(200), primary_key=True)
    # model | config | curves | checkpoint | meta_checkpoint | ablation
    kind: Mapped[str] = mapped_column(String(20))
    step: Mapped[int | None] = mapped_column(BigInteger)
    content_type: Mapped[str] = mapped_column(String(100))
    size: Mapped[int] = mapped_column(BigInteger)
    sha256: Mapped[str] = mapped_column(String(64))
    storage_key: Mapped[str] = mapped_column(String(400))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
