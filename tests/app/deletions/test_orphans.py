"""Files that no row names go when they are old; what an attempt that runs has written stays."""

import os
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from mlhf_service.cli.app import cli
from mlhf_service.database import Database, now
from mlhf_service.deletions import files, leftovers, orphans
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.upkeep import Upkeep
from tests.app.conftest import Rows

DAY = 86_400.0


def _age(path: Path) -> None:
    """Make a file or folder, and all in it, two days old."""
    then = time.time() - 2 * DAY
    for each in [*path.rglob("*"), path]:
        os.utime(each, (then, then))


def _keys(storage: FolderStorage) -> set[str]:
    return {entry.key for entry in storage.list()}


@pytest.fixture
def run_id(rows: Rows) -> str:
    """A run that trains its second attempt, with a model of its own in the store."""
    made = rows.run(rows.job(status="running"), status="running", attempt=2)
    rows.artifact(made, "model.safetensors", b"weights")
    return made


@pytest.fixture
def orphan(storage: FolderStorage, run_id: str) -> set[str]:
    """Old files, of which the attempt that was fenced and the crash left three."""
    lost = {f"runs/{run_id}/1/step-7.safetensors", "runs/run_gone/1/model.safetensors"}
    for key in (*lost, f"runs/{run_id}/2/step-9.safetensors", "datasets/ds_gone/a.csv"):
        storage.put(key, b"x" * 10)
    half = storage.root / f"runs/{run_id}/2/.step-9.safetensors.0123"
    half.write_bytes(b"x")
    _age(storage.root)
    storage.put("runs/run_new/1/model.safetensors", b"just stored, not yet named")
    return lost | {"datasets/ds_gone/a.csv"}


def test_what_no_row_names_goes_and_all_else_stays(
    database: Database, storage: FolderStorage, orphan: set[str]
) -> None:
    before = now() - timedelta(seconds=DAY)
    everything = _keys(storage)
    tried = orphans.sweep(database, storage, before, dry_run=True)
    assert (tried.files, tried.size) == (3, 30)
    assert _keys(storage) == everything
    assert orphans.sweep(database, storage, before) == tried
    assert _keys(storage) == everything - orphan
    assert orphans.sweep(database, storage, before).files == 0


def test_nothing_goes_during_a_backup(
    database: Database, storage: FolderStorage, orphan: set[str]
) -> None:
    with files.held(database):
        assert orphans.sweep(database, storage, now() - timedelta(seconds=DAY)).files == 0
    assert orphan <= _keys(storage)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_many_files_are_looked_up_in_batches(
    database: Database, storage: FolderStorage, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(orphans, "_BATCH", 3)
    run_id = rows.run()
    for number in range(10):
        rows.artifact(run_id, f"{number}.bin", b"named")
        storage.put(f"runs/{run_id}/9/{number}.bin", b"not named")
    _age(storage.root)
    assert orphans.sweep(database, storage, now()).files == 10
    assert len(_keys(storage)) == 10


def test_spools_of_attempts_that_have_ended_go(
    database: Database, settings: Settings, run_id: str
) -> None:
    ended, present = settings.spool_dir / f"{run_id}-1", settings.spool_dir / f"{run_id}-2"
    unknown, fresh = settings.spool_dir / "run_gone-1", settings.spool_dir / "run_gone-2"
    upload = settings.root / "uploads" / "abc"
    for folder in (ended, present, unknown, fresh, upload):
        folder.mkdir(parents=True)
        (folder / "events.jsonl").write_text("{}")
    for folder in (ended, present, unknown, upload):
        _age(folder)
    tried = leftovers.sweep(database, settings, dry_run=True)
    assert tried.files == 3
    assert upload.exists()
    leftovers.sweep(database, settings)
    assert [p.exists() for p in (ended, present, unknown, fresh, upload)] == [
        False,
        True,
        False,
        True,
        False,
    ]


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_the_command_and_the_upkeep_do_the_same(
    settings: Settings,
    database: Database,
    storage: FolderStorage,
    orphan: set[str],
    monkeypatch: Any,
) -> None:
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    dry = CliRunner().invoke(cli, ["gc", "--dry-run"])
    assert dry.exit_code == 0
    assert f"3 files or folders, 30 bytes, would be deleted from {storage.root}" in dry.stdout
    assert orphan <= _keys(storage)
    upkeep = Upkeep(settings, database, storage)
    upkeep.pass_once()
    assert orphan <= _keys(storage), "not at once: it looks at every file"
    upkeep._rarely_at = 0.0
    upkeep.pass_once()
    assert not orphan & _keys(storage)
