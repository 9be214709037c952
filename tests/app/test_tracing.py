"""One trace from the request to the trainer, kept with the job; nothing where traces are off."""

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service import logs, tracing
from mlhf_service.database import Database
from mlhf_service.jobs.models import Job
from mlhf_service.main import create_app
from mlhf_service.queue import doorbell, worker
from mlhf_service.settings import Settings
from mlhf_service.workers.fitness import Fitness
from mlhf_service.workers.registration import Identity, Registration

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
JOB = {
    "kind": "train",
    "model": {"name": "mlp", "params": {"hidden": [8]}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam"},
    "budget": {"steps": 3},
    "batch_size": 64,
}


@pytest.fixture
def spans() -> Iterator[Any]:
    """What was recorded, once traces are on."""
    memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")
    exporter = memory.InMemorySpanExporter()
    tracing.configure("test", exporter)
    yield exporter
    tracing.stop()


@pytest.fixture
def registration(settings: Settings, database: Database) -> Registration:
    return Registration(
        settings, database, Identity("wrk_1", "cpu-1", "cpu", 1), {"type": "cpu"}, Fitness([])
    )


@pytest.mark.slow
def test_one_trace_from_the_request_to_the_trainer(
    spans: Any,
    settings: Settings,
    database: Database,
    registration: Registration,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = create_app(settings)
    app.state.doorbell.stop()
    with TestClient(app, base_url="http://127.0.0.1") as client:
        given = {"traceparent": f"00-{TRACE}-00f067aa0ba902b7-01"}
        assert client.post("/v1/jobs", json=JOB, headers=given).status_code == 201
        client.get("/healthz")
    app.state.database.dispose()
    monkeypatch.setattr(doorbell, "ring", lambda queue: None)
    assert doorbell.publish_outbox(database) == 1
    assert worker.drain(settings, database, "cpu", registration) == 1

    ended = {span.name: span for span in spans.get_finished_spans()}
    names = {"outbox", "doorbell", "claim", "attempt", "start trainer", "train"}
    request = next(span for name, span in ended.items() if name.startswith("POST"))
    for span in [request, *(ended[name] for name in names)]:
        assert f"{span.context.trace_id:032x}" == TRACE, span.name
        assert span.start_time <= span.end_time
    assert f"{request.parent.span_id:016x}" == "00f067aa0ba902b7"
    for name in ("outbox", "doorbell", "claim", "attempt"):
        assert ended[name].parent.span_id == request.context.span_id, name
    for name in ("start trainer", "train"):
        assert ended[name].parent.span_id == ended["attempt"].context.span_id, name
    assert ended["train"].attributes["mlhf.outcome"] == "finished"
    assert ended["attempt"].attributes["mlhf.attempt"] == 1
    assert not [name for name in ended if "healthz" in name]


def test_lines_of_the_log_name_their_trace(spans: Any) -> None:
    root = logging.getLogger()
    handlers, level, stream = root.handlers[:], root.level, io.StringIO()
    try:
        logs.configure("json", process="test", stream=stream, more=[tracing.add_ids])
        with tracing.span("outer", f"00-{TRACE}-00f067aa0ba902b7-01"):
            logging.getLogger("x").warning("within")
        logging.getLogger("x").warning("outside")
    finally:
        root.handlers[:], root.level = handlers, level
        logging.captureWarnings(False)
    within, outside = (json.loads(line) for line in stream.getvalue().splitlines())
    assert within["trace_id"] == TRACE
    assert "trace_id" not in outside


def test_off_nothing_is_kept(client: TestClient, database: Database) -> None:
    made = client.post("/v1/jobs", json=JOB, headers={"traceparent": f"00-{TRACE}-{'1' * 16}-01"})
    assert tracing.current() is None
    with tracing.span("nothing"):
        tracing.record("nothing", 0.0, 1.0)
    with database.read() as session:
        assert session.get_one(Job, made.json()["id"]).traceparent is None


def test_on_by_the_standard_variable_only(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.sdk")
    for endpoint, disabled, on in (("", "", False), ("http://127.0.0.1:9", "true", False)):
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_SDK_DISABLED", disabled)
        tracing.configure("test")
        with tracing.span("one"):
            assert (tracing.current() is not None) == on
    monkeypatch.setenv("OTEL_SDK_DISABLED", "")
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")  # there is no collector to wait for
    tracing.configure("test")
    try:
        with tracing.span("one"):
            assert str(tracing.current()).startswith("00-")
    finally:
        tracing.stop()
