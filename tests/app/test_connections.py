"""Connections to PostgreSQL that the server closes between two uses."""

import pytest
from sqlalchemy import create_engine, event, text
from sqlalchemy.exc import SQLAlchemyError

from mlhf_service import database as module
from mlhf_service.database import Database, is_away


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
