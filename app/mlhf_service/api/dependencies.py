"""Annotated aliases for what endpoints need. One transaction a request, committed once."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Annotated, Protocol

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from mlhf_service.context import Caller, Context
from mlhf_service.database import Database
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage


class Doorbell(Protocol):
    """Wakes the thread that publishes the outbox."""

    def notify(self) -> None:
        """Signal that the outbox may hold rows. Never blocks, never fails."""


@dataclass(frozen=True)
class Backend:
    """What endpoints that open their own transactions need.

    Attributes:
        database: Its sessions see what the caller's tenant owns, and nothing of others.
    """

    settings: Settings
    database: Database
    storage: Storage
    doorbell: Doorbell
    caller: Caller = field(default_factory=Caller)

    @contextmanager
    def read(self) -> Iterator[Context]:
        with self.database.read() as session:
            yield Context(session, self.settings, self.storage, self.caller)

    @contextmanager
    def write(self) -> Iterator[Context]:
        """One transaction. After its commit the doorbell publishes what it put into the outbox."""
        with self.database.write() as session:
            yield Context(session, self.settings, self.storage, self.caller)
        self.doorbell.notify()


# Coroutines, though they wait for nothing: a plain function is a trip to a thread and back, which
# costs more than what these do.
async def _backend(request: Request) -> Backend:
    state = request.app.state
    caller: Caller = request.state.caller  # put there by the gate, which nothing gets around
    database = state.database.of_tenant(caller.tenant)
    return Backend(state.settings, database, state.storage, state.doorbell, caller)


CurrentBackend = Annotated[Backend, Depends(_backend)]


async def _settings(backend: CurrentBackend) -> Settings:
    return backend.settings


async def _database(backend: CurrentBackend) -> Database:
    return backend.database


async def _caller(backend: CurrentBackend) -> Caller:
    return backend.caller


async def _storage(backend: CurrentBackend) -> Storage:
    return backend.storage


def _reader(backend: CurrentBackend) -> Iterator[Session]:
    with backend.database.read() as session:
        yield session


def _writer(backend: CurrentBackend) -> Iterator[Session]:
    with backend.database.write() as session:
        yield session


CurrentSettings = Annotated[Settings, Depends(_settings)]
CurrentCaller = Annotated[Caller, Depends(_caller)]
CurrentDatabase = Annotated[Database, Depends(_database)]
CurrentStorage = Annotated[Storage, Depends(_storage)]
# scope="function": the transaction ends before the response is sent, so that a client
# never reads a 201 for what did not commit.
ReadSession = Annotated[Session, Depends(_reader, scope="function")]
WriteSession = Annotated[Session, Depends(_writer, scope="function")]


async def _read_context(session: ReadSession, backend: CurrentBackend) -> Context:
    return Context(session, backend.settings, backend.storage, backend.caller)


ReadContext = Annotated[Context, Depends(_read_context)]
