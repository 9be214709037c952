"""Tables of jobs: what was asked for, and what happened to it."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, ForeignKey, Index, Integer, String, Text, text
from sqlalchemy.orm import Mapped, mapped_column, relationship

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.runs.models import Run
from mlhf_service.tenancy import TenantOwned


class Job(TenantOwned, Base):
    """One request of a user, of one of ``jobs.kinds``; it has one run or many.

    ``queue``, ``share``, ``rank`` and ``ready_at`` are its place in line (``jobs.line``). The
    latter two are seconds by the database's clock; ``jobs.state`` keeps them.
    """

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(20))
    desired: Mapped[str | None] = mapped_column(String(20))  # cancel | pause, read by workers
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    # A jobs.tally.Tally of its runs, kept once they have all ended.
    tally: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    event_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    retried_from: Mapped[str | None] = mapped_column(String(40))
    cloned_from: Mapped[str | None] = mapped_column(String(40))
    queue: Mapped[str] = mapped_column(String(20), server_default="cpu")
    # tenant/key: jobs of one share wait by rank, and shares take turns (``queue.shares``).
    share: Mapped[str] = mapped_column(String(110), server_default="local/")
    priority: Mapped[int] = mapped_column(Integer, server_default="0")
    rank: Mapped[float] = mapped_column(Float(53), server_default="0")
    # From when a run of it may start; null while none waits, or as many run as may at once.
    ready_at: Mapped[float | None] = mapped_column(Float(53), server_default="0")
    start_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    max_parallel_runs: Mapped[int | None] = mapped_column(Integer)
    # What one of its runs is estimated to need at its peak; 0: not known.
    memory_bytes: Mapped[int] = mapped_column(BigInteger, server_default="0")
    # The trace in which it was made (``tracing``), which its runs go on with.
    traceparent: Mapped[str | None] = mapped_column(String(55))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    # While it runs: since when; and how long it ran before, without pauses and waits.
    running_since: Mapped[datetime | None] = mapped_column(UTCDateTime)
    worked_seconds: Mapped[float] = mapped_column(Float(53), default=0.0, server_default="0")
    archived_at: Mapped[datetime | None] = mapped_column(UTCDateTime)  # hidden from lists
    project_id: Mapped[str | None] = mapped_column(String(40))  # null: the default project
    notes: Mapped[str | None] = mapped_column(Text)  # Markdown

    runs: Mapped[list[Run]] = relationship(order_by=Run.position, viewonly=True)
    tags: Mapped[list["JobTag"]] = relationship(order_by="JobTag.key", cascade="all")

    # These two hold all that lists filter by: they read no row that they do not show.
    __table_args__ = (
        Index("ix_jobs_listed", "tenant", "id", "archived_at", "status", "kind", "name"),
        Index("ix_jobs_of_kind", "kind", "id", "archived_at", "tenant"),
        Index(None, "status", "id"),
        Index(None, "tenant", "name", "id"),
        Index(None, "tenant", "priority", "id"),
        Index(None, "tenant", "project_id", "id"),
        Index(
            "ix_jobs_line",
            "queue",
            "share",
            "rank",
            "id",
            sqlite_where=text("ready_at IS NOT NULL"),
            postgresql_where=text("ready_at IS NOT NULL"),
        ),
    )


class QueueTurn(Base):
    """When a run of a tenant, or of a share of it, last started, by the database's clock."""

    __tablename__ = "queue_turns"

    name: Mapped[str] = mapped_column(String(110), primary_key=True)
    started_at: Mapped[float] = mapped_column(Float(53))


class JobTag(Base):
    """A tag of a job, in a table of its own so that it can be filtered on."""

    __tablename__ = "job_tags"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))

    __table_args__ = (Index(None, "key", "value", "job_id"),)


class JobEvent(Base):
    """What happened to a job, numbered without gaps in the order of commits."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(UTCDateTime)
