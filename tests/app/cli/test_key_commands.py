"""``mlhf keys`` works on the database itself, for any tenant."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from mlhf_service.cli.app import cli
from mlhf_service.database import Database
from mlhf_service.errors import StartError
from mlhf_service.keys import service


@pytest.fixture
def data_dir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("MLHF_DATABASE_URL", raising=False)
    monkeypatch.setenv("MLHF_ENV_FILE", "/nonexistent")
    return tmp_path / "data"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(cli, ["keys", *arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_a_key_s_life(data_dir: Path) -> None:
    place = ("--data-dir", str(data_dir))
    made = json.loads(
        run("create", "--name", "ci", "--tenant", "b", "--scope", "write", *place, "--json")
    )
    assert (made["tenant"], made["scopes"], made["expires_at"]) == ("b", ["write"], None)
    shown = run("create", "--name", "short", "--expires", "90d", *place)
    assert "until 20" in shown
    rotated = run("rotate", made["id"], "--overlap", "0s", *place).strip().splitlines()[-1]

    database = Database(f"sqlite:///{data_dir / 'mlhf.sqlite3'}")
    with database.read() as session:
        assert service.check(session, made["secret"]) is None
        checked = service.check(session, rotated)
        assert checked is not None
        assert checked.caller.tenant == "b"

    listed = run("list", *place)
    assert made["id"] in listed
    assert rotated not in listed
    assert "short" not in run("list", "--tenant", "b", *place)
    assert "revoked" in run("revoke", made["id"], *place)
    assert made["id"] not in run("list", *place)
    assert made["id"] in run("list", "--all", *place)
    with database.read() as session:
        assert service.check(session, rotated) is None
    database.dispose()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("create", "--name", "x", "--tenant", "A b"), "a tenant's name"),
        (("create", "--name", "x\u202ey"), "--name"),
        (("create", "--name", "x", "--expires", "soon"), "90d"),
        (("revoke", "key_none"), "no key of this id"),
    ],
)
def test_what_cannot_be_is_said(data_dir: Path, arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(StartError, match=message):
        run(*arguments, "--data-dir", str(data_dir))
