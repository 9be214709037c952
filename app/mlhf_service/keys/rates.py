"""How often a key may ask, counted for all processes of the API together.

Windows are aligned with the clock, so that one increment says all: how often, and until when.
"""

import logging
import secrets
import time
from dataclasses import dataclass
from typing import Any, Literal

from limits import RateLimitItem, parse
from limits.errors import StorageError
from limits.storage import Storage, storage_from_string
from sqlalchemy import Float, Integer, String, case, delete, event
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import Engine, create_engine
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Mapped, mapped_column

from mlhf_service.database import Base, Database
from mlhf_service.settings import Settings

log = logging.getLogger(__name__)

Kind = Literal["reads", "writes", "failures"]
_FILE = "rate_limits.sqlite3"
_TIDIED_ONCE_IN = 1000


class RateCount(Base):
    """How often one key asked in one window. On SQLite it lies in a file of its own."""

    __tablename__ = "rate_counts"

    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    count: Mapped[int] = mapped_column(Integer)
    expires_at: Mapped[float] = mapped_column(Float(53))  # seconds since 1970


@dataclass(frozen=True)
class Verdict:
    """Whether one more request is within its limit."""

    allowed: bool
    limit: int
    remaining: int
    seconds: int  # until the window ends
    window: int

    def headers(self) -> dict[str, str]:
        found = {
            "RateLimit-Limit": str(self.limit),
            "RateLimit-Remaining": str(self.remaining),
            "RateLimit-Reset": str(self.seconds),
            "RateLimit-Policy": f"{self.limit};w={self.window}",
        }
        return found if self.allowed else {**found, "Retry-After": str(self.seconds)}


class Rates:
    """Counts requests. Where the storage does not answer nobody is refused, and the log says so."""

    def __init__(self, settings: Settings, database: Database) -> None:
        given: dict[Kind, str] = {
            "reads": settings.rate_limit_reads,
            "writes": settings.rate_limit_writes,
            "failures": settings.rate_limit_failures,
        }
        self._limits: dict[Kind, RateLimitItem] = {
            kind: parse(text) for kind, text in given.items() if text
        }
        self._storage = _storage(settings, database)

    def hit(self, kind: Kind, who: str) -> Verdict | None:
        """Count one request; None where there is no limit."""
        limit = self._limits.get(kind)
        if limit is None:
            return None
        window = limit.get_expiry()
        number, passed = divmod(time.time(), window)
        key = f"{kind}/{limit.amount}/{window}/{who}/{int(number)}"
        try:
            count = self._storage.incr(key, window)
        except (StorageError, OSError, SQLAlchemyError) as error:
            log.warning("requests are not counted: %s", type(error).__name__)
            return None
        left = max(0, limit.amount - count)
        seconds = max(1, round(window - passed))
        return Verdict(count <= limit.amount, limit.amount, left, seconds, window)


class DatabaseStorage(Storage):
    """The counters as rows, for deployments without Redis."""

    STORAGE_SCHEME = None

    def __init__(self, engine: Engine) -> None:
        super().__init__(wrap_exceptions=True)
        self._engine = engine
        self._insert: Any = sqlite if engine.dialect.name == "sqlite" else postgresql

    @property
    def base_exceptions(self) -> type[Exception]:
        return SQLAlchemyError

    def incr(self, key: str, expiry: int, amount: int = 1) -> int:
        moment = time.time()
        row = self._insert.insert(RateCount).values(
            key=key, count=amount, expires_at=moment + expiry
        )
        over = RateCount.expires_at <= moment
        statement = row.on_conflict_do_update(
            index_elements=["key"],
            set_={
                "count": case((over, amount), else_=RateCount.count + amount),
                "expires_at": case((over, moment + expiry), else_=RateCount.expires_at),
            },
        ).returning(RateCount.count)
        with self._engine.begin() as connection:
            count = connection.execute(statement).scalar_one()
            if secrets.randbelow(_TIDIED_ONCE_IN) == 0:
                connection.execute(delete(RateCount).where(over))
        return int(count)

    def get(self, key: str) -> int:
        return int(self._value(key, "count", 0))

    def get_expiry(self, key: str) -> float:
        return float(self._value(key, "expires_at", time.time()))

    def check(self) -> bool:
        self._value("", "count", 0)
        return True

    def reset(self) -> int | None:
        with self._engine.begin() as connection:
            return connection.execute(delete(RateCount)).rowcount

    def clear(self, key: str) -> None:
        with self._engine.begin() as connection:
            connection.execute(delete(RateCount).where(RateCount.key == key))

    def _value(self, key: str, name: str, otherwise: Any) -> Any:
        table = RateCount.__table__
        query = table.select().where(table.c.key == key, table.c.expires_at > time.time())
        with self._engine.connect() as connection:
            row = connection.execute(query).mappings().first()
        return row[name] if row is not None else otherwise


def _storage(settings: Settings, database: Database) -> Storage:
    chosen = settings.rate_limit_storage
    if not chosen:
        redis = settings.broker.startswith(("redis://", "rediss://"))
        chosen = settings.broker if redis else "database"
    if chosen != "database":
        options: dict[str, Any] = {} if chosen.startswith("memory") else {"socket_timeout": 2.0}
        storage = storage_from_string(chosen, wrap_exceptions=True, **options)
        assert isinstance(storage, Storage)
        return storage
    if not database.is_sqlite:
        return DatabaseStorage(database.engine)
    return DatabaseStorage(_own_file(settings))


def _own_file(settings: Settings) -> Engine:
    """Counters apart from the data: their many small writes wait for no other, nor others for them.

    They may be lost with the machine, so nothing waits for the disk.
    """
    engine = create_engine(
        f"sqlite:///{settings.root / _FILE}", connect_args={"timeout": 2.0}, pool_size=20
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        for pragma in ("journal_mode=WAL", "synchronous=OFF", "busy_timeout=2000"):
            connection.execute(f"PRAGMA {pragma}")

    Base.metadata.create_all(engine, [RateCount.metadata.tables[RateCount.__tablename__]])
    return engine
