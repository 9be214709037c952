"""The database: engines for SQLite and PostgreSQL, transactions, column types, and its clock."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sqlalchemy import DateTime, Dialect, Engine, Float, MetaData, create_engine, event
from sqlalchemy.engine import make_url
from sqlalchemy.exc import (
    DBAPIError,
    InterfaceError,
    InvalidatePoolError,
    OperationalError,
    SQLAlchemyError,
    TimeoutError,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.orm import DeclarativeBase, Session
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeDecorator

from mlhf_service.commit_log import CommitLog
from mlhf_service.connection_bursts import Bursts
from mlhf_service.data_folder import make_folder
from mlhf_service.errors import StartError
from mlhf_service.kit.json_text import parsed
from mlhf_service.tenancy import TenantSession
from mlhf_service.write_turns import WriteTurns

_BUSY_SECONDS = 15.0
_TURN = "write_turn"  # of a connection: whether it has one
_USED = "used_at"  # of a connection to PostgreSQL: when it was last given back
# Of a transaction on PostgreSQL: what a request or a worker may take.
_LIMITS = "-c lock_timeout=15s -c statement_timeout=60s -c idle_in_transaction_session_timeout=60s"
# Option of a statement: its results come as PostgreSQL's binary format. As text, in hexadecimal,
# large ones take several times as long.
BINARY_RESULTS = {"binary_results": True}
_FRESH_SECONDS = 1.0  # a connection that was used so shortly ago is taken to be alive


class Base(DeclarativeBase):
    """Base of all tables; constraint names are fixed so that migrations can name them."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "fk": "fk_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )


class UTCDateTime(TypeDecorator[datetime]):
    """A time in UTC: aware in Python on every database, naive where SQLite stores it."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("times must carry a time zone")
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None or value.tzinfo is UTC:  # PostgreSQL's are
            return value
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class db_now(FunctionElement[float]):  # noqa: N801 - reads as a SQL function
    """The database's clock, in seconds since 1970: leases are timed by it on every machine."""

    type = Float()
    inherit_cache = True


@compiles(db_now, "sqlite")
def _sqlite_now(element: db_now, compiler: Any, **kw: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(db_now, "postgresql")
def _postgresql_now(element: db_now, compiler: Any, **kw: Any) -> str:
    return "extract(epoch from clock_timestamp())::double precision"


def now() -> datetime:
    """The present, aware, in UTC."""
    return datetime.now(UTC)


class Database:
    """Transactions on one database.

    On SQLite a writer takes the write lock at its beginning (``BEGIN IMMEDIATE``), so
    that what it has read still holds when it writes; PostgreSQL uses row locks for that.

    Attributes:
        tenant: Whose rows its sessions see; None: everybody's, as workers do.
    """

    def __init__(self, url: str) -> None:
        self.tenant: str | None = None
        self.url = make_url(url)
        self.is_sqlite = self.url.get_backend_name() == "sqlite"
        self._log = CommitLog() if self.is_sqlite else None
        self.engine = (
            _postgresql_engine(url) if self._log is None else _sqlite_engine(url, self._log)
        )
        self._bursts = None if self.is_sqlite else Bursts(self.engine)
        self._writer = self.engine.execution_options(sqlite_begin="BEGIN IMMEDIATE")

    def reader(self) -> Session:
        """A session to read with; the caller closes it."""
        return self._session(self.engine)

    def of_tenant(self, tenant: str) -> "Database":
        """The same database, on which sessions see the rows of ``tenant`` only."""
        same = copy(self)
        same.tenant = tenant
        return same

    def _session(self, engine: Engine) -> Session:
        if self.tenant is None:
            return Session(engine, expire_on_commit=False)
        return TenantSession(engine, tenant=self.tenant, expire_on_commit=False)

    @contextmanager
    def read(self) -> Iterator[Session]:
        with self.reader() as session:
            yield session

    @contextmanager
    def write(self) -> Iterator[Session]:
        """One transaction: on the disk at the end, rolled back on any exception."""
        with self._session(self._writer) as session, session.begin():
            yield session
        self.sync()

    def sync(self) -> None:
        """Wait for the disk, after a commit that ``write`` has not made.

        Raises OperationalError where the disk does not take it.
        """
        if self._log is not None:
            self._log.sync()

    def close_idle(self) -> bool:
        """Close connections that a burst has opened, and that nobody has used since the last call.

        Returns whether there were any.
        """
        return self._bursts is not None and self._bursts.close_idle()

    def dispose(self) -> None:
        self.engine.dispose()


def is_away(error: SQLAlchemyError) -> bool:
    """Whether the database does not answer, is busy or is full: the same may work later."""
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    return isinstance(error, (OperationalError, InterfaceError, TimeoutError))


@contextmanager
def explained(database: Database) -> Iterator[None]:
    """Turn what SQLAlchemy raises into a StartError that says what is wrong with the database."""
    try:
        yield
    except SQLAlchemyError as error:
        raise StartError(_explain(database, error)) from None


def _explain(database: Database, error: SQLAlchemyError) -> str:
    where = database.url.render_as_string(hide_password=True)
    original = error.orig if isinstance(error, DBAPIError) else error
    reason = str(original).strip().partition("\n")[0]
    if not database.is_sqlite:
        return f"The database {where} cannot be used: {reason}."
    path = database.url.database
    if "not a database" in reason or "malformed" in reason:
        return (
            f"{path} is damaged, or not a database of MLHF ({reason}). Restore it from a backup, "
            "or choose another --data-dir."
        )
    if "unable to open" in reason or "readonly" in reason:
        return (
            f"{path} cannot be written to ({reason}). Check the permissions of it and its folder."
        )
    return f"The database {path} cannot be used: {reason}."


def _sqlite_engine(url: str, log: CommitLog) -> Engine:
    path = make_url(url).database
    if path and path != ":memory:":
        make_folder(Path(path).parent)
    engine = create_engine(
        url,
        pool_size=40,
        max_overflow=20,
        connect_args={"timeout": _BUSY_SECONDS},
        json_deserializer=parsed,
    )
    turns = WriteTurns(Path(f"{path}.lock"), _BUSY_SECONDS) if path != ":memory:" else None

    @event.listens_for(engine, "connect")
    def _configure(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not inside the driver
        ((mode,),) = connection.execute("PRAGMA journal_mode=WAL")
        ((_, _, file), *_) = connection.execute("PRAGMA database_list")
        log.opened(file)
        for pragma in (
            # ``CommitLog`` waits for the disk. Some file systems have no log.
            f"synchronous={'NORMAL' if mode == 'wal' else 'FULL'}",
            f"busy_timeout={1000 * _BUSY_SECONDS:.0f}",
            "foreign_keys=ON",
        ):
            connection.execute(f"PRAGMA {pragma}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        begin = connection.get_execution_options().get("sqlite_begin", "BEGIN")
        if turns is not None and begin != "BEGIN":
            connection.info[_TURN] = turns.take()
        connection.exec_driver_sql(begin)

    @event.listens_for(engine, "checkin")  # after the transaction, however it ended
    def _end_turn(_connection: Any, record: Any) -> None:
        if turns is not None and record.info.pop(_TURN, False):
            turns.give_back()

    return engine


def _postgresql_engine(url: str) -> Engine:
    # As many as the threads that answer requests. What is opened beyond the pool is closed after
    # use, and a new connection costs the server as much as a request. The last one used is taken
    # first, so that those of a burst are idle after it (``Database.close_idle``).
    engine = create_engine(
        url,
        pool_size=40,
        max_overflow=0,
        pool_use_lifo=True,
        json_deserializer=parsed,
        connect_args={
            "connect_timeout": 5,
            "options": f"-c timezone=utc {_LIMITS}",
        },
    )

    @event.listens_for(engine, "before_cursor_execute")
    def _choose_format(
        _connection: Any, cursor: Any, _statement: str, _values: Any, context: Any, _many: bool
    ) -> None:
        if BINARY_RESULTS.items() <= context.execution_options.items():
            cursor.format = 1  # as libpq counts them

    @event.listens_for(engine, "checkin")
    def _used(_connection: Any, record: Any) -> None:
        record.info[_USED] = time.monotonic()

    @event.listens_for(engine, "checkout")
    def _ping(connection: Any, record: Any, _proxy: Any) -> None:
        """Have a connection that the server closed meanwhile replaced, and all beside it."""
        used = record.info.get(_USED)
        if used is None or time.monotonic() - used < _FRESH_SECONDS:
            return  # a ping takes as long as a statement
        try:
            engine.dialect.do_ping(connection)
        except engine.dialect.loaded_dbapi.Error as error:
            raise InvalidatePoolError(str(error)) from error

    return engine
