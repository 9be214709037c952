"""Fixtures for everything that talks to the service: settings, database, storage, client.

Each test that uses ``database`` runs on SQLite, and on PostgreSQL where a server answers at
``MLHF_TEST_POSTGRESQL`` (default: this machine's); there a database of our own is made and
dropped.
"""

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from sqlalchemy import Pool, create_engine, event

from mlhf_service import commit_log
from mlhf_service.database import Database, now
from mlhf_service.jobs.models import Job
from mlhf_service.kit.ids import new_id
from mlhf_service.migrate import migrate
from mlhf_service.runs import chunks
from mlhf_service.runs.blocks import Block
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.tables import Base
from tests.machine import postgresql_database


@event.listens_for(Pool, "checkout")
def _do_not_wait_for_the_disk(connection: Any, _record: Any, _proxy: Any) -> None:
    """What a power cut would take is not tested."""
    if isinstance(connection, sqlite3.Connection):
        connection.execute("PRAGMA synchronous=OFF")


commit_log._to_disk = lambda file: None


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty SQLite database, copied for each test."""
    path = tmp_path_factory.mktemp("template") / "mlhf.sqlite3"
    database = Database(f"sqlite:///{path}")
    migrate(database)
    with database.engine.connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    database.dispose()
    return path


@pytest.fixture(scope="session")
def postgresql_url() -> Iterator[str]:
    """The URL of a migrated database of our own; skips where no server answers."""
    with postgresql_database() as url:
        database = Database(url)
        migrate(database)
        database.dispose()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The URL of a migrated database without rows."""
    if request.param == "sqlite":
        path = tmp_path / "data" / "mlhf.sqlite3"
        path.parent.mkdir()
        shutil.copy(request.getfixturevalue("sqlite_template"), path)
        yield f"sqlite:///{path}"
        return
    url = request.getfixturevalue("postgresql_url")
    yield url
    engine = create_engine(url)
    # Not TRUNCATE, which makes new files for each table and index: a second on a busy machine.
    emptied = "; ".join(f"delete from {t.name}" for t in reversed(Base.metadata.sorted_tables))
    with engine.begin() as connection:
        connection.exec_driver_sql(emptied)
    engine.dispose()


@pytest.fixture
def settings(database_url: str, tmp_path: Path) -> Settings:
    return Settings(
        _env_file=None,
        data_dir=tmp_path / "data",
        database_url=database_url,
        datasets_dir=tmp_path / "datasets",
    )


@pytest.fixture
def database(settings: Settings) -> Iterator[Database]:
    database = Database(settings.database)
    yield database
    database.dispose()


@pytest.fixture
def storage(settings: Settings) -> FolderStorage:
    return FolderStorage(Path(settings.artifacts))


@pytest.fixture
def app(settings: Settings) -> FastAPI:
    """The application, without a broker."""
    from mlhf_service.main import create_app

    app = create_app(settings)
    app.state.doorbell.stop()
    return app


@pytest.fixture
def client(app: FastAPI) -> Iterator[TestClient]:
    with TestClient(app, base_url="http://127.0.0.1", raise_server_exceptions=False) as client:
        yield client
    app.state.database.dispose()


class Rows:
    """Makes jobs, runs, points and artifacts as a finished training would leave them."""

    def __init__(self, database: Database, storage: FolderStorage) -> None:
        self.database, self.storage = database, storage

    def job(self, **fields: Any) -> str:
        job = Job(
            **{
                "id": new_id("job"),
                "kind": "train",
                "name": "a job",
                "status": "succeeded",
                "spec": {},
                "created_at": now(),
                **fields,
            }
        )
        with self.database.write() as session:
            session.add(job)
        return job.id

    def run(self, job_id: str | None = None, **fields: Any) -> str:
        """Add a run; ``config`` is overlaid on a small one."""
        optimizer = fields.pop("optimizer", "adam")
        config = {
            "model": {"name": "mlp", "params": {"hidden": [32]}},
            "dataset": {"name": "digits", "params": {}},
            "optimizer": {"name": optimizer, "params": {}},
            "budget": {"epochs": 1.0},
            "batch_size": 64,
            "seed": fields.get("seed", 0),
            "device": "cpu",
            **fields.pop("config", {}),
        }
        run = Run(
            **{
                "id": new_id("run"),
                "job_id": job_id or self.job(),
                "position": 0,
                "name": "a run",
                "status": "succeeded",
                "config": config,
                "model": config["model"]["name"],
                "dataset": config["dataset"]["name"],
                "optimizer": config["optimizer"]["name"],
                "seed": config["seed"],
                "queue": "cpu",
                "attempt": 1,
                "created_at": now(),
                **fields,
            }
        )
        with self.database.write() as session:
            session.add(run)
        return run.id

    def points(
        self,
        run_id: str,
        metric: str,
        values: dict[int, float],
        seconds: float = 0.5,
        cpu: float | None = None,
    ) -> None:
        """Add points by step: 10 samples, 0.1 epochs, ``seconds`` and ``cpu`` seconds each step."""
        points = [
            {
                "step": step,
                "samples": 10 * step,
                "epoch": step / 10,
                "wall_seconds": seconds * step,
                "cpu_seconds": None if cpu is None else cpu * step,
                "values": {metric: value},
            }
            for step, value in values.items()
        ]
        with self.database.write() as session:
            chunks.append(session, run_id, 1, Block.of_points(points))

    def artifact(self, run_id: str, name: str, content: bytes, **fields: Any) -> str:
        """Store a file for a run; returns its SHA-256."""
        stored = self.storage.put(f"runs/{run_id}/{name}", content)
        artifact = Artifact(
            **{
                "run_id": run_id,
                "name": name,
                "kind": "model",
                "content_type": "application/octet-stream",
                "size": stored.size,
                "sha256": stored.sha256,
                "storage_key": stored.key,
                "created_at": now(),
                **fields,
            }
        )
        with self.database.write() as session:
            session.add(artifact)
        return stored.sha256


@pytest.fixture
def rows(database: Database, storage: FolderStorage) -> Rows:
    return Rows(database, storage)
