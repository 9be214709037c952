"""What of this machine the tests may use beside Python and the product's own dependencies.

With ``MLHF_TEST_BARE=1`` they run as on a machine that has none of it: no servers, no browser,
no data sets, no packages that only tests need. What is missing skips its tests with the reason.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import pytest

BARE = os.environ.get("MLHF_TEST_BARE") == "1"

# Packages that only tests import; each use begins with pytest.importorskip.
OPTIONAL_PACKAGES = (
    *("accelerate", "lightning", "transformers"),
    *("backpack", "curvlinops", "hypothesis", "playwright", "schemathesis"),
)


def _server(variable: str, default: str) -> str | None:
    """Return a server's URL; None where the variable says ``none``."""
    url = "none" if BARE else os.environ.get(variable, default)
    return None if url == "none" else url


POSTGRESQL = _server("MLHF_TEST_POSTGRESQL", "postgresql+psycopg://root@127.0.0.1:5432/postgres")
REDIS = _server("MLHF_TEST_REDIS", "redis://127.0.0.1:6379/11")
RABBITMQ = _server("MLHF_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//")


def hide_packages() -> None:
    """Let no module import the optional packages.

    But for those that are plugins of pytest too: hide these with ``-p no:hypothesispytest
    -p no:schemathesis``.
    """
    for name in OPTIONAL_PACKAGES:
        if not {name, f"_{name}_pytestplugin"} & sys.modules.keys():
            sys.modules[name] = None  # type: ignore[assignment]


@contextmanager
def postgresql_database() -> Iterator[str]:
    """The URL of an empty database of our own; skips where no PostgreSQL server answers."""
    from sqlalchemy import create_engine, text
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import OperationalError

    if POSTGRESQL is None:
        pytest.skip("no PostgreSQL server is to be used")
    engine = create_engine(
        POSTGRESQL, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 10}
    )
    name = f"mlhf_test_{uuid4().hex[:12]}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
            # What a power cut would take is not tested, and waiting for a disk takes long.
            connection.execute(text(f"alter database {name} set synchronous_commit = off"))
    except OperationalError:
        pytest.skip("no PostgreSQL server answers")
    try:
        yield make_url(POSTGRESQL).set(database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"drop database if exists {name} with (force)"))
        engine.dispose()
