"""A whole service that asks for keys, on all addresses, as a container runs it."""

import subprocess
import sys

import httpx
import pytest

from mlhf_service.client import Client, ServiceError
from tests.service.conftest import Serving, train
from tests.waiting import until

SESSION_SECRET = "canary-of-the-session-" + "s" * 32


@pytest.fixture
def environment(environment: dict[str, str]) -> dict[str, str]:
    return {
        **environment,
        "MLHF_AUTH": "keys",
        "MLHF_HOST": "0.0.0.0",
        "MLHF_ALLOWED_HOSTS": "mlhf.example.org",
        "MLHF_SESSION_SECRET": SESSION_SECRET,
    }


def mlhf(serving: Serving, *arguments: str) -> str:
    command = [sys.executable, "-P", "-m", "mlhf_service.cli.main", *arguments]
    data_dir = ("--data-dir", str(serving.data_dir))
    return subprocess.run([*command, *data_dir], check=True, capture_output=True, text=True).stdout


@pytest.mark.long
def test_a_job_with_a_key_and_no_secret_left_anywhere(serving: Serving) -> None:
    """Keys by the command line; a job by the client; then every process and file is searched."""
    serving.start("serve", "--workers", "1")
    serving.wait_until_ready()
    assert "mlhf keys create" in serving.output()  # no terminal: the command, not a secret
    with pytest.raises(ServiceError, match="MLHF_KEY"):
        serving.client.get("/v1/jobs")

    writer = mlhf(serving, "keys", "create", "--name", "w", "--scope", "write").split()[-1]
    other = mlhf(serving, "keys", "create", "--name", "o", "--tenant", "b").split()[-1]
    with Client(serving.client.url, key=writer) as client:
        job = client.submit(train(budget={"epochs": 30}))
        until(lambda: client.job(job["id"])["status"] != "queued", "it does not run")
        canaries = [writer.rpartition("_")[2], SESSION_SECRET]
        trainers: list[str] = []
        for pid, command in serving.pids().items():
            assert not any(canary in command for canary in canaries)
            if "mlhf.runner" in command or "mlhf.fork_server" in command:
                trainers.append(serving.environment_of(pid))
        assert any(trainers), "every trainer had ended before it was looked at"
        for own in trainers:
            assert not any(canary in own for canary in canaries)
            assert "MLHF_" not in own
        assert client.wait(job["id"], timeout=120)["status"] == "succeeded"
        with Client(serving.client.url, key=other) as stranger:
            assert stranger.find("jobs") == []
            with pytest.raises(ServiceError, match="no job of this id"):
                stranger.job(job["id"])

    address = serving.client.url
    known = {"Authorization": f"Bearer {writer}"}
    for host, status in (("mlhf.example.org", 200), ("evil.example", 403), ("localhost", 200)):
        answer = httpx.get(f"{address}/v1/jobs", headers={**known, "Host": host})
        assert answer.status_code == status, host
    assert httpx.get(f"{address}/healthz", headers={"Host": "10.0.0.7:8000"}).status_code == 200

    serving.stop(serving.processes[0])
    for path in [*serving.data_dir.rglob("*"), *serving.data_dir.parent.glob("*.out")]:
        if path.is_file():
            content = path.read_bytes()
            assert not any(canary.encode() in content for canary in canaries), path


def test_without_keys_no_other_address_is_listened_on(
    serving: Serving, environment: dict[str, str]
) -> None:
    environment["MLHF_AUTH"] = "off"
    process = serving.start("serve")
    assert process.wait(timeout=120) == 1
    assert "Without keys" in serving.output()
    assert "MLHF_AUTH=keys" in serving.output()
