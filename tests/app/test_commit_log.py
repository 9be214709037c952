"""What a write leaves on the disk, how often the disk is asked, and what happens if it refuses."""

import errno
import os
import shutil
import sqlite3
import threading
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, text
from sqlalchemy.exc import OperationalError

from mlhf_service import commit_log
from mlhf_service.database import Database, is_away
from tests.waiting import until


@pytest.fixture
def database(tmp_path: Path) -> Database:
    made = Database(f"sqlite:///{tmp_path}/own.sqlite3")
    with made.write() as session:
        session.execute(text("create table numbers (n integer)"))
    return made


def add(database: Database, number: int) -> None:
    with database.write() as session:
        session.execute(text("insert into numbers values (:n)"), {"n": number})


def numbers(path: Path) -> list[int]:
    with sqlite3.connect(path) as connection:
        return [n for (n,) in connection.execute("select n from numbers order by n")]


def test_what_was_written_is_in_the_log_when_the_log_goes_to_the_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies: list[Path] = []

    def copied(file: int) -> None:
        """As a power cut right after would leave it."""
        os.fdatasync(file)
        folder = tmp_path / f"copy{len(copies)}"
        folder.mkdir()
        for name in ("own.sqlite3", "own.sqlite3-wal"):
            shutil.copy(tmp_path / name, folder / name)
        copies.append(folder / "own.sqlite3")

    monkeypatch.setattr(commit_log, "_to_disk", copied)
    for number in range(3):
        add(database, number)
        assert numbers(copies[-1]) == list(range(number + 1))
    assert len(copies) == 3


def test_others_write_while_one_waits_for_the_disk(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(_file: int) -> None:
        with sqlite3.connect(tmp_path / "own.sqlite3", timeout=0.1) as other:
            other.execute("insert into numbers values (2)")

    monkeypatch.setattr(commit_log, "_to_disk", meanwhile)
    add(database, 1)
    assert numbers(tmp_path / "own.sqlite3") == [1, 2]


def test_one_call_to_the_disk_serves_all_that_have_committed(
    database: Database, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    go = threading.Event()

    def slow(_file: int) -> None:
        asked.append(len(numbers(tmp_path / "own.sqlite3")))
        assert go.wait(60)

    monkeypatch.setattr(commit_log, "_to_disk", slow)
    ended: list[int] = []

    def write(number: int) -> None:
        add(database, number)
        ended.append(number)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(8)]
    threads[0].start()
    until(lambda: asked == [1], "the disk was not asked")
    for thread in threads[1:]:
        thread.start()
    until(lambda: len(numbers(tmp_path / "own.sqlite3")) == 8, "not all have committed")
    assert not ended  # all have committed, none may go on
    go.set()
    for thread in threads:
        thread.join(60)
    assert sorted(ended) == list(range(8))
    # What was asked for before the last commits does not count for them.
    assert 2 <= len(asked) < 8
    assert asked[-1] == 8


def test_a_disk_that_refuses_is_told_and_asked_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_file: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with monkeypatch.context() as patched:
        patched.setattr(commit_log, "_to_disk", broken)
        with pytest.raises(OperationalError, match="Input/output error") as raised:
            add(database, 1)
        assert is_away(raised.value)
    asked: list[int] = []
    monkeypatch.setattr(commit_log, "_to_disk", asked.append)
    add(database, 2)
    assert len(asked) == 1


def test_what_is_rolled_back_waits_for_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(commit_log, "_to_disk", asked.append)
    with pytest.raises(OperationalError, match="no such table"), database.write() as session:
        session.execute(text("insert into numbres values (1)"))
    assert not asked


def test_nothing_is_left_to_do_where_the_log_is_gone(database: Database, tmp_path: Path) -> None:
    add(database, 1)
    database.dispose()  # the last to close it writes all into the database's file
    assert not (tmp_path / "own.sqlite3-wal").exists()
    database.sync()
    assert numbers(tmp_path / "own.sqlite3") == [1]


@pytest.mark.parametrize("way", ["link", "url"])
def test_the_log_is_where_sqlite_keeps_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """Beside the file that a link names; and a URL is no path."""
    monkeypatch.chdir(tmp_path)
    elsewhere = tmp_path / "another disk"
    elsewhere.mkdir()
    (elsewhere / "own.sqlite3").touch()
    (tmp_path / "link.sqlite3").symlink_to(elsewhere / "own.sqlite3")
    url = {
        "link": f"sqlite:///{tmp_path}/link.sqlite3",
        "url": f"sqlite:///file:{elsewhere}/own.sqlite3?uri=true",
    }[way]
    asked: list[str] = []
    monkeypatch.setattr(
        commit_log, "_to_disk", lambda file: asked.append(os.readlink(f"/proc/self/fd/{file}"))
    )
    with Database(url).write() as session:
        session.execute(text("create table numbers (n integer)"))
    assert asked == [str(elsewhere / "own.sqlite3-wal")]


def test_a_folder_that_cannot_be_brought_to_the_disk_is_no_fault(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some network file systems refuse."""

    def refused(_file: int) -> None:
        raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))

    monkeypatch.setattr(os, "fsync", refused)
    database.dispose()
    add(database, 1)  # in a new log


def test_a_child_does_not_wait_for_its_parents_threads(database: Database) -> None:
    assert database._log is not None
    with database._log._turn:
        child = os.fork()
        if child == 0:
            database._log.sync()
            os._exit(0)
        until(lambda: os.waitpid(child, os.WNOHANG)[0] == child, "the child waits")


@pytest.mark.parametrize(("vfs", "how"), [("unix", 1), ("unix-dotfile", 2)])
def test_without_a_log_a_commit_waits_by_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, vfs: str, how: int
) -> None:
    monkeypatch.chdir(tmp_path)
    database = Database(f"sqlite:///file:{tmp_path}/own.sqlite3?vfs={vfs}&uri=true")
    found: list[Any] = []

    @event.listens_for(database.engine, "connect")
    def _look(connection: Any, _record: Any) -> None:
        found.append(connection.execute("PRAGMA synchronous").fetchone())

    with database.write() as session:
        session.execute(text("create table numbers (n integer)"))
    add(database, 1)
    assert set(found) == {(how,)}  # 1: normal, 2: full
