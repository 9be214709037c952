"""The table of workers, each kept up to date by its own heartbeat."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, BigInteger, Float, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime

IDLE, TRAINING, UNFIT, STOPPING = "idle", "training", "unfit", "stopping"


class Worker(Base):
    """One worker process, which trains one run at a time.

    ``seen_at`` is its last heartbeat, in seconds since 1970 by the database's clock, so that
    the clocks of the workers' machines do not matter. A worker that is killed leaves its row
    behind: who has not been seen for a lease is not there (``repository.alive``).
    """

    __tablename__ = "workers"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    host: Mapped[str] = mapped_column(String(255))
    pid: Mapped[int] = mapped_column(Integer)
    queue: Mapped[str] = mapped_column(String(20))
    version: Mapped[str] = mapped_column(String(40))
    # {"type": "cpu" | "cuda", "name": …, "memory_bytes": …}; the last two where known
    device: Mapped[dict[str, Any]] = mapped_column(JSON)
    memory_bytes: Mapped[int] = mapped_column(BigInteger)  # what runs on its machine may need
    cores: Mapped[int] = mapped_column(Integer)
    # Names of the built-in data sets that it has; null of a version that did not say.
    datasets: Mapped[list[str] | None] = mapped_column(JSON(none_as_null=True))
    state: Mapped[str] = mapped_column(String(20))  # idle | training | unfit | stopping
    reason: Mapped[str | None] = mapped_column(String(1000))  # why it is unfit
    run_id: Mapped[str | None] = mapped_column(String(40))  # what it trains
    started_at: Mapped[datetime] = mapped_column(UTCDateTime)
    seen_at: Mapped[float] = mapped_column(Float(53), index=True)
