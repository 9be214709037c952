"""Connections to PostgreSQL that the server closes between two uses."""

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from mlhf_service import database as module
from mlhf_service.database import Database, is_away
from tests.waiting import until


def ask(database: Database) -> int:
    with database.read() as session:
        return int(session.scalar(text("select pg_backend_pid()")) or 0)


def close_from_outside(url: str, pid: int) -> None:
    engine = create_engine(url)
    with engine.begin() as connection:
        assert connection.scalar(text("select pg_terminate_backend(:pid, 5000)"), {"pid": pid})
    engine.dispose()


def test_one_that_was_idle_is_looked_at_and_replaced(
    postgresql_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_FRESH_SECONDS", 0.0)
    database = Database(postgresql_url)
    first = ask(database)
    assert ask(database) == first
    close_from_outside(postgresql_url, first)
    assert ask(database) != first
    database.dispose()


def test_one_that_was_just_used_is_not_asked_whether_it_lives(postgresql_url: str) -> None:
    """That would be a round trip before each transaction. The loss of one is told as such."""
    database = Database(postgresql_url)
    first = ask(database)
    sent: list[str] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def _count(_c: object, _cursor: object, statement: str, *_: object) -> None:
        sent.append(statement)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database.engine.dialect, "do_ping", lambda _: pytest.fail("it was pinged"))
        assert ask(database) == first
        close_from_outside(postgresql_url, first)
        with pytest.raises(SQLAlchemyError) as lost:
            ask(database)
        assert is_away(lost.value)
        assert ask(database) != first
    assert len(sent) == 3
    database.dispose()


def burst(database: Database, size: int) -> set[int]:
    """Use so many connections at once; returns their processes."""
    sessions = [database.reader() for _ in range(size)]
    found = {int(one.scalar(text("select pg_backend_pid()")) or 0) for one in sessions}
    for one in sessions:
        one.close()
    return found


def connected(url: str) -> set[int]:
    """The processes of all connections to the database."""
    engine = create_engine(url)
    query = "select pid from pg_stat_activity where datname = current_database()"
    with engine.connect() as connection:
        found = set(connection.scalars(text(query)))
    engine.dispose()
    return found


def test_those_of_a_burst_are_kept_while_there_are_bursts(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    first = burst(database, 25)
    for _ in range(3):
        assert not database.close_idle()
        assert burst(database, 25) == first
    database.dispose()


def test_those_of_a_burst_are_closed_after_it(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    opened = burst(database, 25)
    assert len(opened) == 25
    assert opened <= connected(postgresql_url)
    assert not database.close_idle(), "they were in use since the last call"
    with database.read() as session:
        mine = session.scalar(text("select pg_backend_pid()"))
        assert database.close_idle()
        assert session.scalar(text("select pg_backend_pid()")) == mine, "it is in use"
    until(lambda: opened & connected(postgresql_url) <= {mine}, "they are still open")
    assert burst(database, 12).isdisjoint({mine})
    assert not database.close_idle()
    database.dispose()


def test_the_last_one_used_is_taken_first(postgresql_url: str) -> None:
    """Others may be idle for long, and it need not be asked whether it lives."""
    database = Database(postgresql_url)
    burst(database, 5)
    last = ask(database)
    assert {ask(database) for _ in range(5)} == {last}
    database.dispose()


def test_as_many_as_threads_are_given_and_no_more(postgresql_url: str) -> None:
    database = Database(postgresql_url)
    assert len(burst(database, 40)) == 40
    sessions = [database.reader() for _ in range(40)]
    for one in sessions:
        one.execute(text("select 1"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(database.engine.pool, "_timeout", 0.1)
        with pytest.raises(SQLAlchemyError) as refused:
            ask(database)
    assert is_away(refused.value)
    for one in sessions:
        one.close()
    database.dispose()
