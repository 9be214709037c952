"""A deployment in parts: PostgreSQL, Redis or RabbitMQ, an API, and workers elsewhere."""

import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError

from tests.service.conftest import (
    Serving,
    checkpointed,
    long,
    train,
    until,
)
from tests.service.test_serve import steps_of

POSTGRESQL = os.environ.get(
    "MLHF_TEST_POSTGRESQL", "postgresql+psycopg://root@127.0.0.1:5432/postgres"
)
BROKERS = {
    "redis": os.environ.get("MLHF_TEST_REDIS", "redis://127.0.0.1:6379/11"),
    "rabbitmq": os.environ.get("MLHF_TEST_RABBITMQ", "amqp://guest:guest@127.0.0.1:5672//"),
}


@pytest.fixture
def postgresql() -> Iterator[str]:
    """The URL of a database of our own, empty, dropped at the end."""
    engine = create_engine(
        POSTGRESQL, isolation_level="AUTOCOMMIT", connect_args={"connect_timeout": 2}
    )
    name = f"mlhf_test_{uuid4().hex[:12]}"
    try:
        with engine.connect() as connection:
            connection.execute(text(f"create database {name}"))
    except OperationalError:
        pytest.skip("no PostgreSQL server answers")
    yield make_url(POSTGRESQL).set(database=name).render_as_string(hide_password=False)
    with engine.connect() as connection:
        connection.execute(text(f"drop database if exists {name} with (force)"))
    engine.dispose()


@pytest.fixture(params=sorted(BROKERS))
def broker(request: pytest.FixtureRequest) -> str:
    url = BROKERS[request.param]
    host, _, port = url.rpartition("@")[2].removeprefix("redis://").partition("/")[0].partition(":")
    try:
        socket.create_connection((host, int(port)), timeout=2).close()
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


def test_jobs_wait_for_workers_and_outlive_them(deployment: Serving) -> None:
    client = deployment.client
    first = client.submit(train())
    second = client.submit(long())
    assert client.job(first["id"])["status"] == "queued"

    deployment.start("worker")
    assert client.wait(first["id"], timeout=60)["status"] == "succeeded"
    until(lambda: checkpointed(deployment, second["id"]), 60, "no checkpoint")
    os.kill(deployment.pid_of("mlhf_service.queue.worker_main"), signal.SIGKILL)
    done = client.wait(second["id"], timeout=90)
    assert done["status"] == "succeeded"
    assert done["attempts"] == 2
    assert steps_of(deployment, done["run_ids"][0]) == list(range(1, 3001))


def test_many_workers_train_each_run_once(deployment: Serving) -> None:
    client = deployment.client
    # No lease may end because the machine is busy: that would rightly be a second attempt.
    deployment.environment["MLHF_LEASE_SECONDS"] = "30"
    deployment.start("worker", "--workers", "2")
    jobs = [client.submit(train(seed=seed))["id"] for seed in range(4)]
    for job in jobs:
        done = client.wait(job, timeout=90)
        assert (done["status"], done["attempts"]) == ("succeeded", 1)
    text_format = client.request("GET", "/metrics").text
    assert 'mlhf_runs{status="succeeded"} 4.0' in text_format
