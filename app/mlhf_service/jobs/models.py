"""Tables of jobs: what was asked for, and what happened to it."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, ForeignKey, Index, String
from sqlalchemy.orm import Mapped, mapped_column, relationship

from mlhf_service.database import Base, UTCDateTime
from mlhf_service.runs.models import Run


class Job(Base):
    """One request of a user, of one of ``jobs.kinds``; it has one run or many."""

    __tablename__ = "jobs"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20))
    name: Mapped[str] = mapped_column(String(200))
    status: Mapped[str] = mapped_column(String(20))
    desired: Mapped[str | None] = mapped_column(String(20))  # cancel | pause, read by workers
    spec: Mapped[dict[str, Any]] = mapped_column(JSON)
    error: Mapped[dict[str, Any] | None] = mapped_column(JSON(none_as_null=True))
    event_seq: Mapped[int] = mapped_column(BigInteger, default=0)
    retried_from: Mapped[str | None] = mapped_column(String(40))
    cloned_from: Mapped[str | None] = mapped_column(String(40))
    created_at: Mapped[datetime] = mapped_column(UTCDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UTCDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UTCDateTime)

    runs: Mapped[list[Run]] = relationship(order_by=Run.position, viewonly=True)
    tags: Mapped[list["JobTag"]] = relationship(order_by="JobTag.key", cascade="all")

    __table_args__ = (Index(None, "status", "id"),)


class JobTag(Base):
    """A tag of a job, in a table of its own so that it can be filtered on."""

    __tablename__ = "job_tags"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    key: Mapped[str] = mapped_column(String(64), primary_key=True)
    value: Mapped[str] = mapped_column(String(256))

    __table_args__ = (Index(None, "key", "value"),)


class JobEvent(Base):
    """What happened to a job, numbered without gaps in the order of commits."""

    __tablename__ = "job_events"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(BigInteger, primary_key=True)
    type: Mapped[str] = mapped_column(String(20))
    data: Mapped[dict[str, Any]] = mapped_column(JSON)
    at: Mapped[datetime] = mapped_column(UTCDateTime)
