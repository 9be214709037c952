"""A backup of a running service, restored on either database, holds all and goes on."""

import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import func, select

from mlhf_service.backup import create as creating
from mlhf_service.backup import rows as dumped
from mlhf_service.backup.archive import verify
from mlhf_service.backup.create import create
from mlhf_service.backup.restore import restore
from mlhf_service.context import Context
from mlhf_service.database import Base, Database, now
from mlhf_service.datasets.models import Dataset
from mlhf_service.deletions import files
from mlhf_service.deletions import service as deletions
from mlhf_service.errors import StartError
from mlhf_service.jobs import service
from mlhf_service.jobs.kinds.registry import parse
from mlhf_service.jobs.models import Job
from mlhf_service.migrate import differences, migrate
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from tests.app.conftest import Rows
from tests.app.queue.worker import Service, trainers
from tests.machine import postgresql_database
from tests.waiting import until


@pytest.fixture(params=["sqlite", "postgresql"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """An empty database to restore into: nothing has migrated it."""
    if request.param == "sqlite":
        database = Database(f"sqlite:///{tmp_path}/other/mlhf.sqlite3")
        yield database
        database.dispose()
        return
    with postgresql_database() as url:
        database = Database(url)
        yield database
        database.dispose()


@pytest.fixture
def elsewhere(empty: Database, tmp_path: Path, settings: Settings) -> Settings:
    url = empty.url.render_as_string(hide_password=False)
    changes = {"data_dir": tmp_path / "other", "database_url": url}
    return Settings(_env_file=None, **{**settings.model_dump(), **changes})


@pytest.fixture
def other_store(elsewhere: Settings) -> FolderStorage:
    return FolderStorage(elsewhere.root / "artifacts")


def everything(database: Database) -> dict[str, list[dict[str, Any]]]:
    with database.engine.connect() as connection:
        return {
            table.name: list(dumped.dump(connection, table)) for table in dumped.tables(connection)
        }


def fill(rows: Rows, storage: FolderStorage, tmp_path: Path) -> str:
    job = rows.job(name="grün \u2028 ✓", tags=[])
    run = rows.run(job)
    rows.points(run, "train_loss", {1: 1.0, 2: float("nan"), 3: float("inf")}, cpu=0.1)
    rows.artifact(run, "model.safetensors", b"weights" * 1000)
    folder = tmp_path / "upload"
    (folder / "deep" / "er").mkdir(parents=True)
    (folder / "a.csv").write_text("x,y\n1,2\n")
    (folder / "deep" / "er" / "b").write_bytes(b"\0\1")
    storage.put_folder("datasets/ds_one", folder)
    with rows.database.write() as session:
        session.add(
            Dataset(
                id="ds_one",
                name="one",
                format="table",
                params={"a": [1, None]},
                info={},
                sha256="0",
                size=1,
                storage_key="datasets/ds_one",
                created_at=now(),
            )
        )
    return run


def test_what_is_restored_is_what_was(
    settings: Settings,
    database: Database,
    storage: FolderStorage,
    rows: Rows,
    empty: Database,
    elsewhere: Settings,
    other_store: FolderStorage,
    tmp_path: Path,
) -> None:
    fill(rows, storage, tmp_path)
    storage.put("runs/run_0/1/orphan", b"that no row names")
    manifest = create(settings, database, storage, tmp_path / "b.tar")
    assert (manifest.missing, manifest.damaged) == ([], [])
    assert (tmp_path / "b.tar").stat().st_mode & 0o777 == 0o600
    restore(elsewhere, empty, other_store, tmp_path / "b.tar")

    assert everything(empty) == everything(database)
    kept = {e.key: e.size for e in storage.list() if "orphan" not in e.key}
    assert {e.key: e.size for e in other_store.list()} == kept
    assert (
        other_store.local_folder("datasets/ds_one") / "deep" / "er" / "b"
    ).read_bytes() == b"\0\1"
    with empty.engine.connect() as connection:
        assert differences(connection) == []
    with empty.write() as session:  # numbered keys go on
        files.enqueue(session, ["a", "b"])
    with pytest.raises(StartError, match="empty service"):
        restore(elsewhere, empty, other_store, tmp_path / "b.tar")


@pytest.mark.long
@pytest.mark.parametrize(
    ("database_url", "empty"), [("sqlite", "postgresql"), ("postgresql", "sqlite")], indirect=True
)
def test_a_paused_run_goes_on_from_a_backup_bit_for_bit(
    settings: Settings,
    database: Database,
    storage: FolderStorage,
    empty: Database,
    elsewhere: Settings,
    other_store: FolderStorage,
    tmp_path: Path,
) -> None:
    short = {"checkpoint_seconds": 0.05, "heartbeat_seconds": 0.2, "threads": 1}
    spec = {
        "kind": "train",
        "model": {"name": "mlp", "params": {"hidden": [16]}},
        "dataset": {"name": "digits"},
        "optimizer": {"name": "adam"},
        "budget": {"epochs": 200},  # long enough to be met in the middle
        "batch_size": 64,
    }
    with database.write() as session:
        job = service.create(Context(session, settings, storage), parse(spec)).id
    original = Service(settings.model_copy(update=short), database, storage)

    def pause(pid: int) -> None:
        with database.write() as session:
            service.pause(session, job)
        until(lambda: _is_asked_to_stop(pid), "its worker has not read that it shall pause")

    waiting = original.when_checkpointed(pause)
    original.work()
    waiting.join()
    create(settings, database, storage, tmp_path / "b.tar")
    restore(elsewhere, empty, other_store, tmp_path / "b.tar")
    restored = Service(elsewhere.model_copy(update=short), empty, other_store)
    for each, of in ((original, database), (restored, empty)):
        assert each.run().status == "paused"
        with of.write() as session:
            service.resume(session, job)
        each.work()
        assert (each.run().status, each.run().attempt) == ("succeeded", 2)
    run = original.run().id
    assert restored.weights(run) == original.weights(run)
    assert restored.curve(run) == original.curve(run)
    assert trainers() == []


def _is_asked_to_stop(pid: int) -> bool:
    """Whether SIGTERM waits for a process that is held still."""
    status = Path(f"/proc/{pid}/status").read_text()
    (pending,) = (line for line in status.splitlines() if line.startswith("ShdPnd:"))
    return bool(int(pending.split()[1], 16) >> (signal.SIGTERM - 1) & 1)


def test_what_ran_is_queued_and_goes_on(
    settings: Settings,
    database: Database,
    storage: FolderStorage,
    rows: Rows,
    empty: Database,
    elsewhere: Settings,
    other_store: FolderStorage,
    tmp_path: Path,
) -> None:
    running = rows.run(rows.job(status="running"), status="running", lease_owner="a", failures=1)
    ending = rows.run(rows.job(status="running", desired="cancel"), status="running")
    create(settings, database, storage, tmp_path / "b.tar")
    restore(elsewhere, empty, other_store, tmp_path / "b.tar")
    with empty.read() as session:
        found = {run.id: (run.status, run.lease_owner) for run in session.query(Run)}
        assert found == {running: ("queued", None), ending: ("cancelled", None)}
        assert {job.status for job in session.query(Job)} == {"queued", "cancelled"}


def test_it_is_of_one_moment_while_others_write_and_delete(
    settings: Settings,
    database: Database,
    storage: FolderStorage,
    rows: Rows,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """While the rows are read, a job is made and another deleted with its files."""
    run = fill(rows, storage, tmp_path)
    real = dumped.tables

    def tables(connection: Any) -> Any:
        found = real(connection)
        connection.execute(select(func.count()).select_from(Base.metadata.tables["jobs"]))

        def disturb() -> None:
            rows.run(rows.job(name="made meanwhile"))
            with database.write() as session:
                context = Context(session, settings, storage)
                job = rows_job(session, run)
                deletions.delete_job(context, job, deletions.Options())
            files.drain(database, storage)

        thread = threading.Thread(target=disturb)
        thread.start()
        thread.join()
        return found

    monkeypatch.setattr(creating.rows, "tables", tables)
    manifest = create(settings, database, storage, tmp_path / "b.tar")
    assert (manifest.rows["jobs"], manifest.rows["runs"], manifest.missing) == (1, 1, [])
    assert f"files/runs/{run}/model.safetensors" in manifest.members
    assert files.drain(database, storage) == 1


def rows_job(session: Any, run_id: str) -> str:
    return str(session.scalar(select(Run.job_id).where(Run.id == run_id)))


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
@pytest.mark.parametrize("empty", ["sqlite"], indirect=True)
class TestRefused:
    """What is not restored; the target is left as it was."""

    @pytest.fixture
    def backup(
        self,
        settings: Settings,
        database: Database,
        storage: FolderStorage,
        rows: Rows,
        tmp_path: Path,
    ) -> Path:
        fill(rows, storage, tmp_path)
        create(settings, database, storage, tmp_path / "b.tar")
        return tmp_path / "b.tar"

    @pytest.mark.parametrize("damage", ["flipped", "cut", "emptied", "no backup", "manifest"])
    def test_a_damaged_file(
        self,
        backup: Path,
        elsewhere: Settings,
        empty: Database,
        other_store: FolderStorage,
        damage: str,
    ) -> None:
        content = bytearray(backup.read_bytes())
        if damage == "flipped":
            place = content.index(b"weights" * 3)
            content[place] ^= 1
        elif damage == "manifest":
            place = content.index(b'"sha256": "') + 15
            content[place] = ord("0") if content[place] != ord("0") else ord("1")
        kept = {"cut": content[: len(content) // 2], "emptied": b"", "no backup": b"x" * 5000}
        backup.write_bytes(kept.get(damage, content))
        with pytest.raises(StartError, match=r"damaged|cut off|no backup"):
            verify(backup)
        with pytest.raises(StartError):
            restore(elsewhere, empty, other_store, backup)
        assert list(other_store.list()) == []
        with empty.engine.connect() as connection:
            assert dumped.tables(connection) == []

    def test_a_target_that_is_not_empty(
        self,
        backup: Path,
        elsewhere: Settings,
        empty: Database,
        other_store: FolderStorage,
    ) -> None:
        other_store.put("mine", b"1")
        with pytest.raises(StartError, match="empty service"):
            restore(elsewhere, empty, other_store, backup)
        other_store.delete("mine")
        migrate(empty)
        Rows(empty, other_store).job()
        with pytest.raises(StartError, match="rows in jobs"):
            restore(elsewhere, empty, other_store, backup)

    def test_an_empty_target_of_an_earlier_version_is_migrated(
        self,
        backup: Path,
        elsewhere: Settings,
        empty: Database,
        other_store: FolderStorage,
        database: Database,
    ) -> None:
        migrate(empty, "0003")
        restore(elsewhere, empty, other_store, backup)
        assert everything(empty) == everything(database)

    def test_a_file_that_is_there_is_kept(
        self,
        backup: Path,
        settings: Settings,
        database: Database,
        storage: FolderStorage,
        empty: Database,
    ) -> None:
        before = backup.read_bytes()
        with pytest.raises(StartError, match="there already"):
            create(settings, database, storage, backup)
        assert backup.read_bytes() == before


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_is_missing_or_damaged_in_the_store_is_named(
    settings: Settings, database: Database, storage: FolderStorage, rows: Rows, tmp_path: Path
) -> None:
    run = rows.run()
    rows.artifact(run, "a", b"1")
    rows.artifact(run, "b", b"2")
    storage.delete(f"runs/{run}/a")
    storage.path(f"runs/{run}/b").write_bytes(b"3")
    manifest = create(settings, database, storage, tmp_path / "b.tar")
    assert manifest.missing == [f"runs/{run}/a"]
    assert manifest.damaged == [f"runs/{run}/b"]
