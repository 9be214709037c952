"""Rolling upgrades: an older version works on a newer schema down to the floor, and no further."""

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import text

from mlhf_service.cli.health import _database as doctor
from mlhf_service.compatibility import floor_of
from mlhf_service.database import Database
from mlhf_service.errors import StartError
from mlhf_service.migrate import known_revisions, migrate
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.upkeep import Upkeep
from tests.app.queue.worker import Service, trainers

NEWEST = max(known_revisions())


def chain(*declared: str | None) -> list[Any]:
    """Migrations 1, 2, …; each with what it declares."""
    return [
        SimpleNamespace(
            revision=str(number),
            module=SimpleNamespace(**({"compatible_with": floor} if floor else {})),
        )
        for number, floor in enumerate(declared, start=1)
    ]


@pytest.mark.parametrize(
    ("declared", "floor"),
    [
        ((None,), "1"),
        ((None, None), "2"),
        ((None, "1"), "1"),
        ((None, "1", "1"), "1"),
        ((None, "1", "2"), "2"),
        ((None, "1", None), "3"),
        ((None, None, "1"), "2"),  # the second has stopped the first already
    ],
)
def test_the_floor_only_rises(declared: tuple[str | None, ...], floor: str) -> None:
    assert floor_of(chain(*declared)) == floor


@pytest.fixture
def newer(database: Database) -> Iterator[Database]:
    """A database that a newer version has expanded: a column and a table that we do not know."""
    migrate(database)
    with database.engine.begin() as connection:
        connection.execute(text("alter table runs add column later varchar(10) default 'x'"))
        connection.execute(text("create table later (id integer primary key)"))
        connection.execute(text("update alembic_version set version_num = '9999'"))
    try:
        yield database
    finally:
        with database.engine.begin() as connection:
            connection.execute(text("alter table runs drop column later"))
            connection.execute(text("drop table later"))
            connection.execute(text(f"update alembic_version set version_num = '{NEWEST}'"))


@pytest.fixture
def contracted(newer: Database) -> Database:
    """One that has removed what we need."""
    with newer.engine.begin() as connection:
        connection.execute(text("update schema_floor set revision = '9998'"))
    return newer


@pytest.mark.slow
def test_an_older_api_and_worker_go_on_above_the_floor(
    newer: Database, client: TestClient, settings: Settings, storage: FolderStorage
) -> None:
    migrate(newer)  # as each process does when it starts
    with newer.engine.connect() as connection:
        present = connection.scalar(text("select version_num from alembic_version"))
    assert present == "9999", "an older version left its mark on a newer schema"
    job = client.post(
        "/v1/jobs",
        json={
            "kind": "train",
            "model": {"name": "mlp", "params": {"hidden": [8]}},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "adam"},
            "budget": {"steps": 3},
        },
    )
    assert job.status_code == 201
    Service(settings.model_copy(update={"threads": 1}), newer, storage).work()
    ended = client.get(f"/v1/jobs/{job.json()['id']}").json()
    assert ended["status"] == "succeeded"
    upkeep = Upkeep(settings, newer, storage)
    upkeep.pass_once()
    assert upkeep.outdated is None
    assert "newer than this version, which may go on" in doctor(settings)
    assert trainers() == []


def test_below_the_floor_it_ends_and_says_why(
    contracted: Database, settings: Settings, storage: FolderStorage
) -> None:
    with pytest.raises(StartError, match=r"newer version of MLHF \(schema 9999.*9998.*Upgrade"):
        migrate(contracted)
    upkeep = Upkeep(settings, contracted, storage)
    upkeep.pass_once()
    assert upkeep.outdated is not None
    assert "Upgrade mlhf" in upkeep.outdated


def test_a_newer_schema_without_a_floor_is_refused(newer: Database) -> None:
    with newer.engine.begin() as connection:
        connection.execute(text("delete from schema_floor"))
    with pytest.raises(StartError, match="newer version"):
        migrate(newer)
