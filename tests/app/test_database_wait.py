"""A service that is started before its database waits for it, and says so."""

import logging
import socket
import threading
from pathlib import Path

import pytest
from sqlalchemy.engine import make_url

from mlhf_service.database import Database
from mlhf_service.database_wait import wait_for


class Door:
    """A port of this machine at which nobody answers until it is opened onto the server."""

    def __init__(self, url: str) -> None:
        behind = make_url(url)
        self._behind = behind.host or "127.0.0.1", behind.port or 5432
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self._listener.close()  # the port is ours no more, but nobody else's yet
        self.url = behind.set(host="127.0.0.1", port=self.port).render_as_string(False)

    def open(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self._listener.close()

    def _serve(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._behind)
            for source, target in ((client, server), (server, client)):
                threading.Thread(target=_pump, args=(source, target), daemon=True).start()


def _pump(source: socket.socket, target: socket.socket) -> None:
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def test_it_waits_and_says_so_once(postgresql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    door, pauses = Door(postgresql_url), []

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 3:
            door.open()

    database = Database(door.url)
    with caplog.at_level(logging.WARNING):
        assert wait_for(database, 30.0, sleep)
    database.dispose()
    door.close()
    assert len(pauses) == 3
    assert pauses == sorted(pauses), "the pauses grow"
    first, last = (record.getMessage() for record in caplog.records)
    assert f":{door.port}/" in first
    assert "Waiting for it, for up to 30 s" in first
    assert last == "The database answers. Going on."


def test_it_does_not_wait_for_ever(postgresql_url: str, caplog: pytest.LogCaptureFixture) -> None:
    database = Database(Door(postgresql_url).url)
    assert not wait_for(database, 0.3)
    assert len(caplog.records) == 1


def test_a_server_that_refuses_is_not_waited_for(postgresql_url: str, tmp_path: Path) -> None:
    def sleep(_: float) -> None:
        raise AssertionError("it will refuse later too")

    url = make_url(postgresql_url).set(database="no_such_database").render_as_string(False)
    assert not wait_for(Database(url), 30.0, sleep)
    assert wait_for(Database(f"sqlite:///{tmp_path}/none"), 30.0, sleep)
