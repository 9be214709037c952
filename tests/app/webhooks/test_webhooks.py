"""Webhooks from the state that is written to the signed request that is received."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import update
from standardwebhooks import Webhook as Verifier

from mlhf_service.database import Database, db_now
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.ingest import Ingestor, StoredEvent
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.webhooks import delivery as delivering
from mlhf_service.webhooks import sender
from mlhf_service.webhooks.delivery import Deliverer
from mlhf_service.webhooks.models import Webhook, WebhookDelivery
from tests.app.conftest import Rows
from tests.app.webhooks.receiver import Receiver, receiving
from tests.waiting import until

JOB: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam"},
    "budget": {"steps": 3},
}


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
    deliverer = Deliverer(settings, database, retry_seconds=(0.01, 0.01, 0.01))
    deliverer.start()
    yield deliverer
    deliverer.stop()


def create(client: TestClient, url: str, **fields: Any) -> dict[str, Any]:
    made = client.post("/v1/webhooks", json={"url": url, **fields})
    assert made.status_code == 201, made.text
    body: dict[str, Any] = made.json()
    return body


def deliveries(client: TestClient, webhook: dict[str, Any], **filters: str) -> list[Any]:
    found = client.get(f"/v1/webhooks/{webhook['id']}/deliveries", params=filters).json()
    return list(found["data"])


def verified(message: tuple[dict[str, str], str], secret: str) -> Any:
    headers, body = message
    return Verifier(secret).verify(body, headers)


def test_states_of_jobs_and_runs_are_received_signed(
    client: TestClient, receiver: Receiver, deliverer: Deliverer
) -> None:
    hook = create(client, receiver.url, events=["job.*", "run.cancelled"])
    job = client.post("/v1/jobs", json=JOB).json()
    client.post(f"/v1/jobs/{job['id']}/cancel")
    until(lambda: len(receiver.received) == 3, "three events")
    events = [verified(message, hook["secret"]) for message in receiver.received]
    assert {e["type"] for e in events} == {"job.queued", "run.cancelled", "job.cancelled"}
    (ended,) = [e for e in events if e["type"] == "job.cancelled"]
    assert (ended["data"]["id"], ended["data"]["status"]) == (job["id"], "cancelled")
    headers = receiver.received[0][0]
    assert headers["host"] == f"127.0.0.1:{receiver.server.server_port}"
    until(lambda: len(deliveries(client, hook, status="delivered")) == 3, "all are recorded")
    assert "secret" not in client.get("/v1/webhooks").text


def test_it_is_written_with_the_state_or_not_at_all(
    client: TestClient, receiver: Receiver, database: Database, rows: Rows
) -> None:
    from mlhf_service.jobs import service

    hook = create(client, receiver.url)
    job = rows.job(status="queued")
    rows.run(job, status="queued")

    class AbortError(Exception):
        pass

    def cancel_and_die() -> None:
        with database.of_tenant("local").write() as session:
            service.cancel(session, job)
            raise AbortError

    with pytest.raises(AbortError):
        cancel_and_die()
    assert deliveries(client, hook) == []
    client.post(f"/v1/jobs/{job}/cancel")
    (one,) = deliveries(client, hook)
    assert (one["status"], one["attempts"]) == ("pending", 0)


def test_what_fails_is_sent_again_under_its_id(
    client: TestClient, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.answers = [500, 302]
    hook = create(client, receiver.url)
    client.post(f"/v1/webhooks/{hook['id']}/test")
    until(lambda: deliveries(client, hook, status="delivered"), "it was never delivered")
    assert len(receiver.received) == 3, "a redirect is not followed"
    assert len({headers["webhook-id"] for headers, _ in receiver.received}) == 1
    assert len({body for _, body in receiver.received}) == 1
    for message in receiver.received:
        assert verified(message, hook["secret"])["type"] == "webhook.test"
    (one,) = deliveries(client, hook)
    assert (one["attempts"], one["response_status"], one["error"]) == (3, 204, None)
    client.post(f"/v1/webhooks/{hook['id']}/deliveries/{one['id']}/retry")
    until(lambda: len(receiver.received) == 4, "it was not sent again")


def test_a_dead_end_disables_and_says_so(
    client: TestClient, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.answers = [500] * 4
    hook = create(client, receiver.url)
    client.post(f"/v1/webhooks/{hook['id']}/test")

    def disabled() -> Any:
        shown = client.get(f"/v1/webhooks/{hook['id']}").json()
        return None if shown["enabled"] else shown["disabled_reason"]

    reason = until(disabled, "it was never disabled")
    assert reason == "a delivery failed 4 times, at last because it answered 500"
    (one,) = deliveries(client, hook)
    assert one["status"] == "failed"
    assert client.post(f"/v1/webhooks/{hook['id']}/test").status_code == 409
    client.post("/v1/jobs", json=JOB)
    assert len(deliveries(client, hook)) == 1

    assert client.patch(f"/v1/webhooks/{hook['id']}", json={"enabled": True}).json()["enabled"]
    client.post(f"/v1/webhooks/{hook['id']}/test")
    until(lambda: deliveries(client, hook, status="delivered"), "not delivered")


def test_gone_disables_at_once(
    client: TestClient, receiver: Receiver, deliverer: Deliverer
) -> None:
    receiver.answers = [410]
    hook = create(client, receiver.url)
    client.post(f"/v1/webhooks/{hook['id']}/test")
    address = f"/v1/webhooks/{hook['id']}"
    until(lambda: not client.get(address).json()["enabled"], "it was never disabled")
    assert len(receiver.received) == 1
    assert "410" in client.get(address).json()["disabled_reason"]


def test_a_sender_that_dies_loses_nothing(
    client: TestClient,
    receiver: Receiver,
    settings: Settings,
    database: Database,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hook = create(client, receiver.url)
    client.post(f"/v1/webhooks/{hook['id']}/test")
    monkeypatch.setattr(delivering, "_TAKEN_SECONDS", 0.2)
    dying = Deliverer(settings, database)
    monkeypatch.setattr(dying, "_deliver", lambda *_: None)  # dies after it has taken it
    assert dying.begin_due() == 1
    other = Deliverer(settings, database)
    other.start()
    until(lambda: deliveries(client, hook, status="delivered"), "it was never delivered")
    other.stop()
    dying.stop()
    assert len(receiver.received) == 1


def test_after_a_rotation_both_secrets_verify_for_a_while(
    client: TestClient, receiver: Receiver, deliverer: Deliverer, database: Database
) -> None:
    hook = create(client, receiver.url)
    rotated = client.post(f"/v1/webhooks/{hook['id']}/rotate").json()
    assert rotated["secret"] != hook["secret"]
    client.post(f"/v1/webhooks/{hook['id']}/test")
    until(lambda: len(receiver.received) == 1, "not received")
    for secret in (hook["secret"], rotated["secret"]):
        verified(receiver.received[0], secret)
    with database.write() as session:
        session.execute(update(Webhook).values(previous_until=db_now() - 1))
    client.post(f"/v1/webhooks/{hook['id']}/test")
    until(lambda: len(receiver.received) == 2, "not received")
    verified(receiver.received[1], rotated["secret"])
    with pytest.raises(Exception, match="No matching signature"):
        verified(receiver.received[1], hook["secret"])


def test_an_answer_without_end_is_not_read_to_its_end(receiver: Receiver) -> None:
    receiver.answers, receiver.body = [200], b"x" * 50_000_000
    assert sender.post(receiver.url, "{}", {}, {"127.0.0.1"}) == 200


def _point(step: int, **values: Any) -> dict[str, Any]:
    at = {"step": step, "samples": step, "epoch": 0.0, "wall_seconds": 0.0, "cpu_seconds": 0.0}
    return {**at, "values": values}


def test_a_metric_that_meets_a_condition_is_announced_once_a_run(
    client: TestClient, settings: Settings, database: Database, storage: FolderStorage
) -> None:
    conditions: list[dict[str, Any]] = [
        {"metric": "train_loss", "when": "below", "value": 0.1},
        {"metric": "batch_loss", "when": "not_finite"},
        {"metric": "test_accuracy", "when": "above", "value": 0.9},
    ]
    hook = create(client, "https://example.org/", events=[], metrics=conditions)
    job = client.post("/v1/jobs", json=JOB).json()
    claim = claim_next(database, "cpu", "test", 30.0)
    assert claim is not None
    ingestor = Ingestor(database, storage, claim, 30.0)

    def write(*points: dict[str, Any]) -> None:
        ingestor.apply([StoredEvent({"type": "points", "points": list(points)})])

    write(_point(1, train_loss=0.5, batch_loss=1.0))
    assert deliveries(client, hook) == []
    write(_point(2, train_loss=0.05), _point(3, train_loss=0.01, batch_loss="NaN"))
    write(_point(2, train_loss=0.05), _point(4, train_loss=0.01, batch_loss="NaN"))
    found = {json.loads(one["body"])["data"]["step"] for one in deliveries(client, hook)}
    assert found == {2, 3}
    (first,) = [d for d in deliveries(client, hook) if '"step":2' in d["body"]]
    said = json.loads(first["body"])
    assert said["type"] == "metric.threshold"
    assert said["data"]["id"] == job["run_ids"][0]
    assert said["data"]["condition"]["metric"] == "train_loss"
    assert said["data"]["value"] == 0.05


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "http://example.org/"},
        {"url": "https://10.0.0.1/"},
        {"url": "https://[::ffff:127.0.0.1]/"},
        {"url": "https://[64:ff9b::7f00:1]/"},
        {"url": "https://user:secret@example.org/"},
        {"url": "https://example.org/#a"},
        {"url": "https://example.org/ a"},
        {"url": "https://"},
        {"url": "https://["},
        {"url": "https://exa\udcffmple.org/"},
        {"url": "file:///etc/passwd"},
        {"url": "https://example.org:0/"},
        {"url": "https://example.org:99999/"},
        {"url": "https://example.org/", "events": ["job.unknown"]},
        {"url": "https://example.org/", "metrics": [{"metric": "a", "when": "below"}]},
        {"url": "https://example.org/", "secret": "mine"},
    ],
)
def test_what_could_not_be_sent_to_is_refused(client: TestClient, wrong: dict[str, Any]) -> None:
    refused = client.post(
        "/v1/webhooks", content=json.dumps(wrong), headers={"Content-Type": "application/json"}
    )
    assert refused.status_code == 422, refused.text


def test_change_and_delete(client: TestClient, database: Database) -> None:
    hook = create(client, "https://example.org/a", description="mine")
    address = f"/v1/webhooks/{hook['id']}"
    changed = client.patch(address, json={"events": ["run.*"], "enabled": False}).json()
    assert (changed["events"], changed["enabled"], changed["url"]) == (
        ["run.*"],
        False,
        "https://example.org/a",
    )
    assert client.patch(address, json={"url": "https://127.0.0.2/"}).status_code == 422
    assert client.post(f"{address}/test").status_code == 409
    client.patch(address, json={"enabled": True})
    client.post(f"{address}/test")
    assert client.delete(address).status_code == 204
    assert client.get(address).status_code == 404
    assert client.delete(address).status_code == 404
    with database.read() as session:
        assert session.query(WebhookDelivery).count() == 0


def test_another_tenant_s_webhook_is_not_there_nor_sent_to(
    client: TestClient, database: Database
) -> None:
    hook = create(client, "https://example.org/", events=["job.*"])
    with database.write() as session:
        session.execute(update(Webhook).values(tenant="other"))
    client.post("/v1/jobs", json=JOB)
    address = f"/v1/webhooks/{hook['id']}"
    for method, path in (
        ("GET", address),
        ("PATCH", address),
        ("DELETE", address),
        ("POST", f"{address}/rotate"),
        ("POST", f"{address}/test"),
        ("GET", f"{address}/deliveries"),
    ):
        body = {} if method == "PATCH" else None
        assert client.request(method, path, json=body).status_code == 404
    assert client.get("/v1/webhooks").json()["data"] == []
    with database.read() as session:
        assert session.query(WebhookDelivery).count() == 0
