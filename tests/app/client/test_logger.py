"""The logger of a user's own loop: in the background, each point once, whatever happens."""

import json
import logging
import time
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from mlhf_service.client import Client, ServiceError
from mlhf_service.client import logger as module
from tests.waiting import until


class Service:
    """What the service does with batches, as far as the logger sees it."""

    def __init__(self) -> None:
        self.points: list[dict[str, Any]] = []
        self.sequence, self.status, self.error = 0, "running", None
        self.away = False
        self.loses_answers = 0
        self.made: dict[str, Any] = {}

    def __call__(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("refused")
        body = json.loads(request.content)
        match request.url.path.rpartition("/")[2]:
            case "runs":
                self.made = body
                return httpx.Response(201, json={"id": "run_1", "status": "running"})
            case "points":
                if body["sequence"] == self.sequence + 1:
                    self.points += body["points"]
                    self.sequence += 1
                if self.loses_answers:
                    self.loses_answers -= 1
                    raise httpx.ReadError("lost")
            case "finish":
                self.status, self.error = body["status"], body["error"]
        state = {"run_id": "run_1", "status": self.status, "sequence": self.sequence}
        return httpx.Response(200, json=state)


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Service:
    monkeypatch.setattr(module, "_SEND_EVERY_SECONDS", 0.01)
    return Service()


@pytest.fixture
def client(service: Service) -> Client:
    client = Client("http://test")
    client._http = httpx.Client(base_url=client.url, transport=httpx.MockTransport(service))
    return client


def test_points_arrive_in_order_and_the_run_ends(client: Client, service: Service) -> None:
    with client.run(project="p", optimizer="sgd", config={"lr": 0.1}) as run:
        for step in range(5000):
            run.log(loss=1 / (step + 1), samples=64 * (step + 1))
    assert [point["step"] for point in service.points] == list(range(1, 5001))
    assert service.points[0]["values"] == {"train_loss": 1.0}
    assert service.points[-1]["samples"] == 320_000
    assert service.status == "succeeded"
    assert service.made["config"] == {"lr": 0.1}
    assert service.made["environment"]["device_name"]


def test_a_batch_whose_answer_was_lost_is_sent_with_the_same_number(
    client: Client, service: Service
) -> None:
    service.loses_answers = 2
    with client.run() as run:
        run.log(loss=1.0)
        run.log(loss=0.5)
    assert [point["values"]["train_loss"] for point in service.points] == [1.0, 0.5]


def test_a_service_that_is_away_neither_slows_the_loop_nor_loses_points(
    client: Client, service: Service
) -> None:
    with client.run() as run:
        service.away = True
        began = time.process_time()
        for _ in range(1000):
            run.log(loss=1.0)
        assert time.process_time() - began < 1.0
        assert service.points == []
        service.away = False
    assert len(service.points) == 1000


def test_what_could_not_be_sent_is_said(
    client: Client, service: Service, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), client.run(finish_seconds=0.0) as run:
        service.away = True
        run.log(loss=1.0)
    assert "1 points were not written" in caplog.text


@pytest.mark.parametrize(
    ("error", "status"), [(ZeroDivisionError("no"), "failed"), (KeyboardInterrupt(), "cancelled")]
)
def test_a_loop_that_breaks_ends_its_run(
    client: Client, service: Service, error: BaseException, status: str
) -> None:
    def broken() -> None:
        with client.run() as run:
            run.log(loss=1.0)
            raise error

    with pytest.raises(type(error)):
        broken()
    assert (service.status, len(service.points)) == (status, 1)
    assert service.error == ("ZeroDivisionError: no" if status == "failed" else None)


def test_a_cancelled_run_takes_no_more(client: Client, service: Service) -> None:
    run = client.run()
    service.status = "cancelled"
    run.log(loss=1.0)
    until(lambda: run.stopped, "nobody told the logger")
    assert "cancelled" in (run.stopped or "")
    run.log(loss=0.5)
    run.finish()
    assert len(service.points) == 1


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        (lambda run: run.log(), "at least one metric"),
        (lambda run: run.log(loss="low"), "loss='low' is no number"),
        (lambda run: (run.log(step=5, loss=1.0), run.log(step=4, loss=1.0)), "steps ascend"),
    ],
)
def test_what_cannot_be_logged_is_refused_where_it_is_logged(
    client: Client, wrong: Callable[[Any], Any], says: str
) -> None:
    with client.run() as run, pytest.raises(ValueError, match=says):
        wrong(run)


def test_a_service_that_is_away_at_the_start_is_said(client: Client, service: Service) -> None:
    service.away = True
    with pytest.raises(ServiceError, match="mlhf serve"):
        client.run()


def test_a_batch_stays_below_what_a_body_may_have(client: Client, service: Service) -> None:
    sizes: list[int] = []
    answer = client._http._transport.handler  # type: ignore[attr-defined]
    client._http = httpx.Client(
        base_url=client.url,
        transport=httpx.MockTransport(lambda r: (sizes.append(len(r.content)), answer(r))[1]),
    )
    with client.run() as run:
        for _ in range(1000):
            run.log(**{f"a_metric_of_a_long_name_{i}": 1 / 3 for i in range(40)})
    assert len(service.points) == 1000
    assert max(sizes) < 2**20
