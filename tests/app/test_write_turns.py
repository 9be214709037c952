"""Writers of one SQLite database take turns, in threads and in processes."""

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from mlhf_service.database import Database
from mlhf_service.write_turns import WriteTurns
from tests.waiting import until

HOLDER = """
import sys, time
from pathlib import Path
from mlhf_service.write_turns import WriteTurns
turns = WriteTurns(Path(sys.argv[1]), 10.0)
assert turns.take()
print("held", flush=True)
time.sleep(600)
"""
WRITER = """
import sys
from sqlalchemy import text
from mlhf_service.database import Database
database = Database(sys.argv[1])
for _ in range(40):
    with database.write() as session:
        session.execute(text("update counter set value = value + 1"))
"""


@pytest.fixture
def lock(tmp_path: Path) -> Path:
    return tmp_path / "database.lock"


def test_a_turn_is_had_by_one_process_and_ends_with_it(lock: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", HOLDER, lock], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        try:
            assert not WriteTurns(lock, 0.05).take()  # it goes on without, in the end
        finally:
            os.kill(other.pid, signal.SIGKILL)
    turns = WriteTurns(lock, 60.0)
    assert turns.take()
    turns.give_back()


def test_threads_take_turns_too(lock: Path) -> None:
    turns, short = WriteTurns(lock, 60.0), WriteTurns(lock, 0.05)
    assert turns.take()
    assert not short.take()
    got: list[bool] = []
    waiting = threading.Thread(target=lambda: got.append(turns.take()))
    waiting.start()
    turns.give_back()
    waiting.join()
    assert got == [True]
    turns.give_back()
    assert short.take()
    short.give_back()


def test_a_fork_has_no_part_in_its_parents_turn(lock: Path) -> None:
    turns = WriteTurns(lock, 0.05)
    assert turns.take()
    child = os.fork()
    if child == 0:
        os._exit(int(turns.take()))
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0  # it had to do without
    assert not WriteTurns(lock, 0.05).take()
    turns.give_back()


def test_without_a_folder_to_lock_in_sqlite_decides(tmp_path: Path) -> None:
    assert not WriteTurns(tmp_path / "absent" / "lock", 1.0).take()


def test_a_turn_ends_with_its_transaction_however_that_ends(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'd.sqlite3'}")
    probe = WriteTurns(tmp_path / "d.sqlite3.lock", 0.0)
    with database.write() as session:
        session.execute(text("create table counter (value integer)"))
        assert not probe.take()
    assert probe.take()
    probe.give_back()

    def fail() -> None:
        with database.write() as session:
            session.execute(text("insert into counter values (1)"))
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        fail()
    with database.read() as session:
        assert session.scalar(text("select count(*) from counter")) == 0
        assert probe.take()  # readers do not take one
        probe.give_back()
    database.dispose()


def test_many_processes_write_without_an_error(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'd.sqlite3'}"
    database = Database(url)
    with database.write() as session:
        session.execute(text("create table counter (value integer)"))
        session.execute(text("insert into counter values (0)"))
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, url], stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    until(lambda: all(w.poll() is not None for w in writers), "the writers did not end")
    errors = [w.stderr.read().decode() for w in writers if w.stderr is not None]
    for writer in writers:
        if writer.stderr is not None:
            writer.stderr.close()
    assert errors == [""] * 4
    with database.read() as session:
        assert session.scalar(text("select value from counter")) == 160
    database.dispose()
