"""Files still to be deleted, and what holds that off."""

from datetime import datetime

from sqlalchemy import BigInteger, Float, Integer, String
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, UTCDateTime, now


class FileDeletion(Base):
    """A file or folder of the store to delete, once the transaction with this row has committed.

    What its rows were is gone by then, so a crash in between leaves neither a file that no row
    names nor a row without its file.
    """

    __tablename__ = "file_deletions"

    id: Mapped[int] = mapped_column(
        BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=True
    )
    storage_key: Mapped[str] = mapped_column(String(400))
    # Seconds since 1970 by the database's clock.
    not_before: Mapped[float] = mapped_column(Float(53), default=0.0)
    created_at: Mapped[datetime] = mapped_column(UTCDateTime, default=now)


class DeletionHold(Base):
    """While one of these has not expired no file is deleted: a backup copies them."""

    __tablename__ = "deletion_holds"

    id: Mapped[str] = mapped_column(String(40), primary_key=True)
    expires_at: Mapped[float] = mapped_column(Float(53))  # by the database's clock
