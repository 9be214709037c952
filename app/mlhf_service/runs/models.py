"""Tables of runs: one training each, with its lease, its curve and its artifacts."""

from datetime import datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    String,
    Text,
)
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.tenancy import TenantOwned

_LISTED = ("tenant", "id", "archived_at", "status", "optimizer", "model", "dataset", "name")


class Run(TenantOwned, Base):
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
    dataset_name: Mapped[str | None] = mapped_column(String(200))  # of an upload; else null
    optimizer: Mapped[str] = mapped_column(String(100))
    seed: Mapped[int] = mapped_column(BigInteger)
    # What a learned optimizer uses; fixed when the job was made.
    meta_checkpoint_id: Mapped[str | None] = mapped_column(String(40), index=True)
    project_id: Mapped[str | None] = mapped_column(String(40))  # its job's; null: the default
    # Those of its job when it was made, changed since with them or alone.
    tags: Mapped[dict[str, str] | None] = mapped_column(JSON(none_as_null=True))
    notes: Mapped[str | None] = mapped_column(Text)  # Markdown

    queue: Mapped[str] = mapped_column(String(20))
    attempt: Mapped[int] = mapped_column(Integer, default=0)
    # Attempts in a row that ended by a fault: the run's own, and of the workers that it met.
    failures: Mapped[int] = mapped_column(Integer, default=0)
    worker_faults: Mapped[int] = mapped_column(Integer, default=0, server_default="0")
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
    archived_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # hidden from lists

    __table_args__ = (
        Index(None, "job_id", "position", unique=True, postgresql_include=["id"]),
        Index(None, "status", "queue", "available_at"),
        # These hold all that lists of runs and of jobs filter by: no other row is read.
        Index("ix_runs_listed", *_LISTED),
        Index("ix_runs_of_job", "job_id", "optimizer", "model", "dataset", "tenant"),
        Index(None, "tenant", "name", "id"),
        Index(None, "tenant", "project_id", "id"),
        Index(None, "tenant", "dataset_name", "id"),
    )


class CurveChunk(Base):
    """The rows of a run's curves over some steps, which no other chunk of the run covers.

    See ``runs.blocks`` for what is in the bytes, ``runs.chunks`` for how chunks come about.
    """

    __tablename__ = "curve_chunks"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    first_step: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    last_step: Mapped[int] = mapped_column(BigInteger)
    attempt: Mapped[int] = mapped_column(Integer)  # that wrote it last
    rows: Mapped[int] = mapped_column(Integer)
    digest: Mapped[str] = mapped_column(String(32))  # of data
    # By metric: how many points, their smallest and largest value (blocks.Extent).
    extents: Mapped[dict[str, Any]] = mapped_column(JSON)
    # Ends and extremes of each metric as rows; null where data is small. Before data, for SQLite
    # reads a row from its beginning.
    summary: Mapped[bytes | None] = mapped_column(LargeBinary)
    data: Mapped[bytes] = mapped_column(LargeBinary)


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
