"""A deployment in parts: PostgreSQL, Redis or RabbitMQ, an API, and workers elsewhere."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machine import RABBITMQ, REDIS, postgresql_database
from tests.service.conftest import (
    LEASE_OF_A_KILLED_WORKER,
    LONG_STEPS,
    Serving,
    checkpointed,
    long,
    train,
)
from tests.service.test_serve import steps_of
from tests.waiting import DEADLINE, until

pytestmark = pytest.mark.services

BROKERS = {"redis": REDIS, "rabbitmq": RABBITMQ}


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of an empty database of our own."""
    with postgresql_database() as url:
        yield url


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest) -> str:
    url = BROKERS[request.param]
    if url is None:
        pytest.skip(f"no {request.param} server is to be used")
    host, _, port = url.rpartition("@")[2].removeprefix("redis://").partition("/")[0].partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=10).close()
    except OSError:
        pytest.skip(f"no {request.param} server answers")
    return url


@pytest.fixture
def deployment(
    tmp_path: Path, environment: dict[str, str], postgresql: str, broker: str
) -> Iterator[Serving]:
    """An API, and the settings that its workers share with it."""
    serving = Serving(
        tmp_path / "deployment" / "data",
        {**environment, "MLHF_DATABASE_URL": postgresql, "MLHF_BROKER_URL": broker},
    )
    serving.start("api")
    serving.wait_until_ready()
    yield serving
    serving.client.close()
    for process in reversed(serving.processes):
        serving.stop(process)
    assert serving.pids() == {}, serving.output()


@pytest.mark.long
def test_jobs_wait_for_workers_and_outlive_them(deployment: Serving) -> None:
    client = deployment.client
    first = client.submit(train())
    second = client.submit(long())
    assert client.job(first["id"])["status"] == "queued"

    deployment.environment["MLHF_LEASE_SECONDS"] = LEASE_OF_A_KILLED_WORKER
    deployment.start("worker")
    assert client.wait(first["id"], timeout=DEADLINE)["status"] == "succeeded"
    until(lambda: checkpointed(deployment, second["id"]), "no checkpoint")
    os.kill(deployment.pid_of("mlhf_service.queue.worker_main"), signal.SIGKILL)
    done = client.wait(second["id"], timeout=DEADLINE)
    assert done["status"] == "succeeded"
    assert done["attempts"] == 2
    assert steps_of(deployment, done["run_ids"][0]) == list(range(1, LONG_STEPS + 1))


@pytest.mark.long
def test_many_workers_train_each_run_once(deployment: Serving) -> None:
    client = deployment.client
    deployment.start("worker", "--workers", "2")
    jobs = [client.submit(train(seed=seed))["id"] for seed in range(4)]
    for job in jobs:
        done = client.wait(job, timeout=DEADLINE)
        assert (done["status"], done["attempts"]) == ("succeeded", 1)
    text_format = client.request("GET", "/metrics").text
    assert 'mlhf_runs{status="succeeded"} 4.0' in text_format
