"""The table of runs that are written through to MLflow."""

from sqlalchemy import Boolean, Float, ForeignKey, Index, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base


class MirroredRun(Base):
    """How far a run was written through. Times are seconds since 1970 by the database's clock.

    Who takes a row moves ``due_at`` on, so that two processes do not write one run at once.
    """

    __tablename__ = "mirrored_runs"

    run_id: Mapped[str] = mapped_column(ForeignKey("runs.id", ondelete="CASCADE"), primary_key=True)
    due_at: Mapped[float] = mapped_column(Float(53), default=0.0)
    failures: Mapped[int] = mapped_column(Integer, default=0)  # in a row
    written: Mapped[str | None] = mapped_column(String(100))  # status and step of the last time
    done: Mapped[bool] = mapped_column(Boolean, default=False)  # it has ended, and is written whole

    __table_args__ = (Index(None, "done", "due_at"),)
