"""The commands for webhooks, against the application and a receiver."""

import json
from collections.abc import Iterator

import pytest

from mlhf_service.client import ServiceError
from mlhf_service.database import Database
from mlhf_service.settings import Settings
from mlhf_service.webhooks.delivery import Deliverer
from tests.app.cli.conftest import Call
from tests.app.webhooks.receiver import Receiver, receiving

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def settings(settings: Settings) -> Settings:
    changes = {"webhook_private_hosts": "127.0.0.1", "poll_seconds": 0.02}
    return settings.model_copy(update=changes)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.fixture
def deliverer(settings: Settings, database: Database) -> Iterator[Deliverer]:
    deliverer = Deliverer(settings, database, retry_seconds=(60.0,))
    deliverer.start()
    yield deliverer
    deliverer.stop()


def test_from_add_to_delete(call: Call, receiver: Receiver, deliverer: Deliverer) -> None:
    made = call(
        "webhooks", "add", receiver.url, "--event", "run.*", "--metric", "train_loss below 0.1"
    )
    identity, secret = made.output.splitlines()
    assert "whsec_" in secret
    (shown,) = json.loads(call("webhooks", "list", "--json").output)
    assert (shown["id"], shown["events"]) == (identity, ["run.*"])
    assert shown["metrics"] == [{"metric": "train_loss", "when": "below", "value": 0.1}]
    assert "run.*" in call("webhooks", "list").output
    assert "delivered, answered with 204" in call("webhooks", "test", identity).output
    receiver.answers = [500]
    failed = call("webhooks", "test", identity)
    assert failed.exit_code == 1
    assert "500" in failed.output
    table = call("webhooks", "deliveries", identity).output
    assert table.count("webhook.test") == 2
    assert (
        len(
            json.loads(
                call("webhooks", "deliveries", identity, "--status", "delivered", "--json").output
            )
        )
        == 1
    )
    assert call("webhooks", "delete", identity).output == f"deleted {identity}\n"
    assert json.loads(call("webhooks", "list", "--json").output) == []


def test_only_metrics_are_sent_where_only_they_are_asked_for(call: Call) -> None:
    call("webhooks", "add", "http://127.0.0.1:9/x", "--metric", "batch_loss not_finite")
    (shown,) = json.loads(call("webhooks", "list", "--json").output)
    assert shown["events"] == []


def test_a_disabled_one_says_why_and_can_be_enabled(
    call: Call, receiver: Receiver, deliverer: Deliverer
) -> None:
    identity = call("webhooks", "add", receiver.url).output.splitlines()[0]
    receiver.answers = [410]
    assert call("webhooks", "test", identity).exit_code == 1
    (shown,) = json.loads(call("webhooks", "list", "--json").output)
    assert not shown["enabled"]
    assert shown["disabled_reason"] == "it answered 410 Gone"
    listed = call("webhooks", "list").output
    assert identity in listed, "whole, however narrow the terminal"
    assert "Gone" in listed
    assert call("webhooks", "enable", identity).exit_code == 0
    assert json.loads(call("webhooks", "list", "--json").output)[0]["enabled"]


def test_a_test_that_nobody_sends_says_so(call: Call, receiver: Receiver) -> None:
    identity = call("webhooks", "add", receiver.url).output.splitlines()[0]
    unsent = call("webhooks", "test", identity, "--wait", "0.1")
    assert unsent.exit_code == 1
    assert "does a supervisor" in unsent.output


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["add", "https://example.org", "--metric", "loss under 3"], "is no condition"),
        (["add", "https://example.org", "--metric", "loss below x"], "is no condition"),
        (["add", "https://example.org", "--event", "job.odd"], "/events/0"),
        (["add", "https://10.0.0.1/"], "public"),
        (["delete", "job_1"], "no id of a webhook"),
        (["test", "wh_unknown"], "no webhook"),
        (["deliveries", "wh_../../jobs"], "nothing at"),
        (["deliveries", "wh_1", "--status", "odd"], "status"),
    ],
)
def test_what_is_wrong_is_said(call: Call, arguments: list[str], said: str) -> None:
    found = call("webhooks", *arguments)
    assert isinstance(found.exception, ServiceError), found.output
    assert said in str(found.exception)
