"""Annotated aliases for what endpoints need. One transaction a request, committed once."""

from collections.abc import Iterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session

from mlhf_service.database import Database
from mlhf_service.queue.doorbell import Doorbell
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage


def _settings(request: Request) -> Settings:
    return request.app.state.settings  # type: ignore[no-any-return]


def _database(request: Request) -> Database:
    return request.app.state.database  # type: ignore[no-any-return]


def _storage(request: Request) -> FolderStorage:
    return request.app.state.storage  # type: ignore[no-any-return]


def _doorbell(request: Request) -> Doorbell:
    return request.app.state.doorbell  # type: ignore[no-any-return]


def _reader(request: Request) -> Iterator[Session]:
    with _database(request).read() as session:
        yield session


def _writer(request: Request) -> Iterator[Session]:
    with _database(request).write() as session:
        yield session


CurrentSettings = Annotated[Settings, Depends(_settings)]
CurrentDatabase = Annotated[Database, Depends(_database)]
CurrentStorage = Annotated[FolderStorage, Depends(_storage)]
CurrentDoorbell = Annotated[Doorbell, Depends(_doorbell)]
# scope="function": the transaction ends before the response is sent, so that a client
# never reads a 201 for what did not commit.
ReadSession = Annotated[Session, Depends(_reader, scope="function")]
WriteSession = Annotated[Session, Depends(_writer, scope="function")]
