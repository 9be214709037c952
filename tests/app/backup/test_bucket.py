"""A backup of a service whose files lie in a bucket, into a bucket, and back from there."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlhf_service.cli.app import cli
from mlhf_service.database import Database
from mlhf_service.errors import StartError
from mlhf_service.jobs.models import Job
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from tests.app.conftest import Rows
from tests.app.storage.conftest import bucket, s3

__all__ = ["bucket", "s3"]  # fixtures
pytestmark = [
    pytest.mark.services,
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]


def test_there_and_back(
    bucket: str, settings: Settings, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLHF_DATABASE_URL", settings.database)
    monkeypatch.setenv("MLHF_ARTIFACTS_URL", f"{bucket}/artifacts")
    store = open_storage(settings.model_copy(update={"artifacts_url": f"{bucket}/artifacts"}))
    run = rows.run(rows.job(name="one"))
    rows.artifact(run, "model.safetensors", b"weights" * 1000)
    key = f"runs/{run}/model.safetensors"
    store.put(key, b"weights" * 1000)
    url = f"{bucket}/backups/monday.tar"
    folder = ["--data-dir", str(settings.root)]
    made = CliRunner().invoke(cli, ["backup", url, *folder])
    assert made.output.startswith(f"{url}: 1 jobs, 1 runs"), made
    again = CliRunner().invoke(cli, ["backup", url, *folder])
    assert isinstance(again.exception, StartError)
    assert "there already" in str(again.exception)
    checked = CliRunner().invoke(cli, ["restore", "--check", url, *folder])
    assert f"{url} is whole" in checked.output

    other = tmp_path / "other"
    monkeypatch.setenv("MLHF_DATABASE_URL", f"sqlite:///{other}/mlhf.sqlite3")
    monkeypatch.setenv("MLHF_ARTIFACTS_URL", f"{bucket}/others")
    restored = CliRunner().invoke(cli, ["restore", url, "--data-dir", str(other)])
    assert "restored 1 jobs" in restored.output, restored
    database = Database(f"sqlite:///{other}/mlhf.sqlite3")
    with database.read() as session:
        assert [job.name for job in session.query(Job)] == ["one"]
    database.dispose()
    moved = open_storage(settings.model_copy(update={"artifacts_url": f"{bucket}/others"}))
    assert b"".join(moved.read(key)) == b"weights" * 1000
    assert not list(settings.root.glob("backup-*"))
    assert not list(other.glob("backup-*"))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("s3://bucket", "names no file"),
        ("s3://", "names no file"),
        ("s3://mlhf-test/nothing.tar", "There is no"),
    ],
)
def test_what_is_no_backup(bucket: str, settings: Settings, url: str, said: str) -> None:
    found = CliRunner().invoke(cli, ["restore", url, "--data-dir", str(settings.root)])
    assert isinstance(found.exception, StartError), found
    assert said in str(found.exception)
