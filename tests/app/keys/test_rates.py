"""Rate limits: told in headers, counted over all processes, refused with a 429."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from uuid import uuid4

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.keys.rates import Rates
from mlhf_service.keys.schemas import NewKey
from mlhf_service.main import create_app
from mlhf_service.settings import Settings
from tests.app.keys.conftest import MakeKey, bearer
from tests.machine import REDIS


@pytest.fixture
def settings(settings: Settings) -> Settings:
    settings.rate_limit_reads = "3/hour"
    settings.rate_limit_writes = "2/hour"
    settings.rate_limit_failures = "4/hour"
    return settings


@pytest.fixture(params=["memory://", "database"])
def counted_in(request: pytest.FixtureRequest, settings: Settings) -> str:
    settings.rate_limit_storage = str(request.param)
    return settings.rate_limit_storage


def test_a_key_that_asks_too_often_is_told_to_wait(
    counted_in: str, as_: Callable[[NewKey], TestClient], make_key: MakeKey
) -> None:
    client, other = as_(make_key()), as_(make_key())
    for left in (2, 1, 0):
        answer = client.get("/v1/jobs")
        assert answer.status_code == 200
        assert answer.headers["ratelimit-limit"] == "3"
        assert answer.headers["ratelimit-remaining"] == str(left)
        assert answer.headers["ratelimit-policy"] == "3;w=3600"
        assert 0 < int(answer.headers["ratelimit-reset"]) <= 3600
    answer = client.get("/v1/jobs")
    assert answer.status_code == 429
    assert answer.json()["type"] == "/problems/too-many-requests"
    assert answer.headers["retry-after"] == answer.headers["ratelimit-reset"]
    assert other.get("/v1/jobs").status_code == 200
    assert client.post("/v1/jobs", json={}).status_code == 403  # what changes counts apart
    assert client.get("/healthz").status_code == 200


def test_guessing_is_slowed_down_and_keys_still_work(client: TestClient, make_key: MakeKey) -> None:
    key = make_key()
    guesses = [client.get("/v1/jobs", headers=bearer(f"mlhf_{n}")).status_code for n in range(6)]
    assert guesses == [401] * 4 + [429] * 2
    assert client.get("/v1/jobs").status_code == 429
    tried = client.post("/login", data={"key": "x"}, headers={"Origin": "http://127.0.0.1"})
    assert tried.status_code == 429
    assert client.get("/v1/jobs", headers=bearer(key)).status_code == 200
    assert client.get("/login").status_code == 200


def test_processes_count_together(settings: Settings, database: Database) -> None:
    """As API processes do: each with its own connections."""
    settings.rate_limit_storage = "database"
    processes = [Rates(settings, database) for _ in range(3)]
    with ThreadPoolExecutor(6) as pool:
        verdicts = list(pool.map(lambda n: processes[n % 3].hit("reads", "key_1"), range(12)))
    assert sum(verdict is not None and verdict.allowed for verdict in verdicts) == 3
    other = processes[0].hit("reads", "key_2")
    assert other is not None
    assert other.remaining == 2


def test_processes_count_together_in_redis(settings: Settings, database: Database) -> None:
    """On a live server, by the package that speaks to it; what was counted ends by itself."""
    redis = pytest.importorskip("redis")
    if REDIS is None:
        pytest.skip("no Redis server is to be used")
    server = redis.Redis.from_url(REDIS, socket_connect_timeout=5)
    try:
        server.ping()
    except redis.exceptions.RedisError:
        pytest.skip("no Redis server answers")
    settings.broker_url, settings.rate_limit_storage = REDIS, ""  # the broker is the default
    processes = [Rates(settings, database) for _ in range(3)]
    who = f"key_{uuid4().hex}"
    with ThreadPoolExecutor(6) as pool:
        verdicts = list(pool.map(lambda n: processes[n % 3].hit("reads", who), range(12)))
    assert all(verdict is not None for verdict in verdicts), "it was counted"
    assert sum(verdict is not None and verdict.allowed for verdict in verdicts) == 3
    (kept,) = server.scan_iter(f"*{who}*")
    assert 0 < server.ttl(kept) <= 3600
    server.delete(kept)


def test_a_window_that_is_over_is_forgotten(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.rate_limit_storage, settings.rate_limit_reads = "database", "1/minute"
    rates, moment = Rates(settings, database), 6000.0
    monkeypatch.setattr("mlhf_service.keys.rates.time.time", lambda: moment)
    monkeypatch.setattr("mlhf_service.keys.rates.secrets.randbelow", lambda most: 0)
    first, second = rates.hit("reads", "k"), rates.hit("reads", "k")
    assert first is not None
    assert second is not None
    assert (first.allowed, second.allowed, second.seconds) == (True, False, 60)
    moment = 6061.0
    third = rates.hit("reads", "k")
    assert third is not None
    assert third.allowed
    storage = rates._storage
    assert storage.check()
    storage.reset()
    again = rates.hit("reads", "k")
    assert again is not None
    assert again.remaining == 0


def test_where_counters_are_away_requests_are_answered(
    settings: Settings, make_key: MakeKey
) -> None:
    settings.rate_limit_storage = "redis://127.0.0.1:9/0"
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    answer = client.get("/v1/jobs", headers=bearer(make_key()))
    assert answer.status_code == 200
    assert "ratelimit-limit" not in answer.headers


def test_without_keys_nothing_is_counted(settings: Settings) -> None:
    settings.auth = "off"
    client = TestClient(create_app(settings), base_url="http://127.0.0.1")
    assert "ratelimit-limit" not in client.get("/v1/jobs").headers
