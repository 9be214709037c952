"""What goes wrong at the start of a command is a sentence that says what to do, not a traceback."""

import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhf_service.cli.app import cli
from mlhf_service.cli.errors import explain
from mlhf_service.database import Database
from mlhf_service.migrate import migrate

Use = Callable[..., str]
USE_DATABASE = ["serve", "api", "worker", "migrate", "doctor"]


@pytest.fixture
def use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Use:
    """Run a command that must fail; returns what it says."""

    def run(command: str, *arguments: str, data_dir: Path | None = None, **settings: str) -> str:
        monkeypatch.chdir(tmp_path)
        for name in [name for name in os.environ if name.startswith("MLHF_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("MLHF_PORT", "0")
        for name, value in settings.items():
            monkeypatch.setenv(name, value)
        folder = data_dir or tmp_path / "data"
        with pytest.raises(SystemExit) as end, explain():
            cli([command, *arguments, "--data-dir", str(folder)])
        assert end.value.code == 1
        shown = capsys.readouterr()
        said = shown.out if command == "doctor" else shown.err
        if command == "doctor":
            (said,) = [line for line in said.splitlines() if line.startswith("FAIL database")]
        assert len(said.strip().splitlines()) == 1, said
        return said

    return run


@pytest.fixture
def database(tmp_path: Path) -> Path:
    """The path of a migrated database in the data folder."""
    (tmp_path / "data").mkdir()
    path = tmp_path / "data" / "mlhf.sqlite3"
    made = Database(f"sqlite:///{path}")
    migrate(made)
    made.dispose()
    return path


@pytest.mark.parametrize("command", USE_DATABASE)
def test_a_data_folder_that_is_a_file(use: Use, tmp_path: Path, command: str) -> None:
    (tmp_path / "data").write_text("not a folder")
    assert "is not a folder" in use(command)
    assert "is not a folder" in use(command, data_dir=tmp_path / "data" / "below")


@pytest.mark.parametrize("command", USE_DATABASE)
def test_a_data_folder_that_cannot_be_made(use: Use, command: str) -> None:
    assert "Cannot make the folder /proc/mlhf" in use(command, data_dir=Path("/proc/mlhf"))


@pytest.mark.parametrize("command", USE_DATABASE)
def test_a_read_only_data_folder(
    use: Use, tmp_path: Path, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "data").mkdir(mode=0o500)
    access = os.access

    def without_privileges(path: str | Path, mode: int) -> bool:
        return access(path, mode) and not (mode & os.W_OK and Path(path) == tmp_path / "data")

    monkeypatch.setattr(os, "access", without_privileges)  # root may write anywhere
    said = use(command)
    assert f"Cannot write to the folder {tmp_path}/data" in said
    assert "--data-dir" in said


@pytest.mark.parametrize("command", USE_DATABASE)
def test_a_database_that_is_garbage(use: Use, tmp_path: Path, command: str) -> None:
    (tmp_path / "data").mkdir()
    garbage = bytes(range(256)) * 64
    (tmp_path / "data" / "mlhf.sqlite3").write_bytes(garbage)
    said = use(command)
    assert f"{tmp_path}/data/mlhf.sqlite3 is damaged, or not a database of MLHF" in said
    assert (tmp_path / "data" / "mlhf.sqlite3").read_bytes() == garbage


@pytest.mark.parametrize("command", USE_DATABASE)
def test_a_database_of_another_program(use: Use, tmp_path: Path, command: str) -> None:
    (tmp_path / "data").mkdir()
    connection = sqlite3.connect(tmp_path / "data" / "mlhf.sqlite3")
    connection.execute("create table jobs (salary integer)")
    connection.close()
    said = use(command)
    assert "belongs to another program: it has tables called jobs" in said


@pytest.mark.parametrize("command", USE_DATABASE)
def test_data_of_a_newer_version(use: Use, database: Path, command: str) -> None:
    connection = sqlite3.connect(database)
    connection.execute("update alembic_version set version_num = '9000'")
    connection.execute("update schema_floor set revision = '9000'")
    connection.commit()
    connection.close()
    said = use(command)
    assert "was written by a newer version of MLHF (schema 9000" in said
    assert "Upgrade mlhf" in said


@pytest.mark.parametrize("command", USE_DATABASE)
def test_a_database_server_that_does_not_answer(use: Use, command: str) -> None:
    url = "postgresql+psycopg://mlhf:secret@127.0.0.1:9/mlhf"
    said = use(command, MLHF_DATABASE_URL=url, MLHF_DATABASE_WAIT_SECONDS="1")
    assert "postgresql+psycopg://mlhf:***@127.0.0.1:9/mlhf cannot be used" in said
    assert "refused" in said
    assert "secret" not in said


@pytest.mark.parametrize("command", ["serve", "api"])
def test_a_port_in_use(use: Use, command: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        said = use(command, "--port", str(port))
    assert f"Cannot listen on 127.0.0.1:{port}" in said
    assert "--port" in said


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("MLHF_PORT", "many", "MLHF_PORT is 'many'"),
        ("MLHF_WORKERS", "-1", "MLHF_WORKERS is '-1'"),
        ("MLHF_DATABASE_URL", "nonsense", "MLHF_DATABASE_URL is 'nonsense'"),
        ("MLHF_DATABASE_URL", "postgresql://a:secret@b/c", "postgresql+psycopg://"),
        ("MLHF_DATABASE_URL", "mysql://a:secret@b/c", "MLHF_DATABASE_URL is 'mysql://a:***@b/c'"),
        ("MLHF_BROKER_URL", "carrier-pigeon://", "MLHF_BROKER_URL is 'carrier-pigeon://'"),
        ("MLHF_ARTIFACTS_URL", "ftp://bucket", "MLHF_ARTIFACTS_URL is 'ftp://bucket'"),
    ],
)
def test_a_setting_that_is_wrong(use: Use, name: str, value: str, shown: str) -> None:
    said = use("migrate", **{name: value})
    assert "the settings are not valid" in said
    assert shown in said
    assert "secret" not in said


def test_a_broker_that_does_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLHF_BROKER_URL", "redis://user:secret@127.0.0.1:9/0")
    with pytest.raises(SystemExit), explain():
        cli(["doctor"])
    shown = capsys.readouterr().out
    assert "FAIL broker: redis://user:***@127.0.0.1:9/0 does not answer" in shown
    assert "secret" not in shown


def test_version_and_help_import_nothing_slow() -> None:
    slow = {"pydantic_settings", "sqlalchemy", "fastapi", "celery", "httpx", "torch"}
    code = f"""
import sys
from mlhf_service.cli.app import cli
for option in ("--version", "--help"):
    cli([option], standalone_mode=False)
slow = {slow!r} & set(sys.modules)
assert not slow, slow
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("mlhf ")


def test_the_optimizer_alone_says_what_the_command_line_needs() -> None:
    code = """
import sys

class Missing:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("typer", "httpx", "sqlalchemy"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Missing())
from mlhf_service.cli.main import main
main()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == (
        "mlhf: the package typer is missing. Install it with: pip install 'mlhf[service]'\n"
    )
