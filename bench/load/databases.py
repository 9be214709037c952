"""The databases that are measured: SQLite in a temporary folder, and one of a server's own."""

import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from uuid import uuid4

from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

POSTGRESQL = "postgresql+psycopg://root@127.0.0.1:5432/postgres"
BOTH = ("sqlite", POSTGRESQL)


def in_turn(urls: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the URL of an empty database, and an empty folder, for each; both are removed after.

    Args:
        urls: ``sqlite``, or where a PostgreSQL server is.
    """
    for url in urls:
        with tempfile.TemporaryDirectory() as folder:
            if url.startswith("sqlite"):
                yield f"sqlite:///{folder}/mlhf.sqlite3", folder
            else:
                with database_at(url) as own:
                    yield own, folder


@contextmanager
def database_at(url: str) -> Iterator[str]:
    """An empty database beside the one that a PostgreSQL's URL names."""
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    name = f"mlhf_bench_{uuid4().hex[:8]}"
    with engine.connect() as connection:
        connection.execute(text(f"create database {name}"))
    try:
        yield make_url(url).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"drop database {name} with (force)"))
        engine.dispose()
