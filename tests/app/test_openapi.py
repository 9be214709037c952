"""Whatever is sent within, or just outside, the OpenAPI document: never a 5xx."""

import json
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.main import create_app
from mlhf_service.migrate import migrate
from mlhf_service.settings import Settings

hypothesis = pytest.importorskip("hypothesis")
schemathesis = pytest.importorskip("schemathesis")
HealthCheck, Phase, settings = hypothesis.HealthCheck, hypothesis.Phase, hypothesis.settings

EXAMPLES = int(os.environ.get("MLHF_TEST_FUZZ_EXAMPLES", "4"))  # make fuzz sends 10,000


HEADERS = {"Host": "127.0.0.1"}

# Made at collection, since there is one test an operation; its database follows below.
FOLDER = Path(tempfile.mkdtemp(prefix="mlhf-fuzzed-"))
CONFIGURED = Settings(_env_file=None, data_dir=FOLDER)
APP = create_app(CONFIGURED)
schema = schemathesis.openapi.from_asgi("/openapi.json", APP, headers=HEADERS)


@pytest.fixture(scope="module", autouse=True)
def fuzzed() -> Iterator[FastAPI]:
    """One application for all examples, so that they meet what others left."""
    database = Database(CONFIGURED.database)
    migrate(database)
    database.dispose()
    yield APP
    APP.state.database.dispose()
    shutil.rmtree(FOLDER)


@pytest.mark.slow
@schema.parametrize()
@settings(
    max_examples=EXAMPLES,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_no_input_is_an_error_of_ours(case: schemathesis.Case) -> None:
    # The first network that is sent has a process import torch, on a machine that may be busy.
    case.call_and_validate(
        checks=[schemathesis.checks.not_a_server_error], headers=HEADERS, timeout=120.0
    )


def test_the_document_is_complete(fuzzed: FastAPI) -> None:
    paths = fuzzed.openapi()["paths"]
    for path in (
        "/v1/jobs",
        "/v1/jobs/{job_id}",
        "/v1/jobs/{job_id}/cancel",
        "/v1/jobs/{job_id}/pause",
        "/v1/jobs/{job_id}/resume",
        "/v1/jobs/{job_id}/retry",
        "/v1/jobs/{job_id}/clone",
        "/v1/jobs/{job_id}/events",
        "/v1/jobs/{job_id}/logs",
        "/v1/runs",
        "/v1/runs/{run_id}",
        "/v1/runs/{run_id}/curves",
        "/v1/runs/{run_id}/artifacts",
        "/v1/runs/{run_id}/artifacts/{name}",
        "/v1/comparisons",
        "/v1/models",
        "/v1/datasets",
        "/v1/optimizers",
        "/healthz",
        "/readyz",
        "/metrics",
    ):
        assert path in paths, path
    for path, operations in paths.items():
        for method, operation in operations.items():
            assert operation.get("summary"), f"{method} {path}"


def test_every_reference_in_the_document_resolves(fuzzed: FastAPI) -> None:
    document = fuzzed.openapi()
    known = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert set(re.findall(r'"\$ref": "([^"]+)"', json.dumps(document))) <= known


def test_errors_are_described_as_problem_documents(fuzzed: FastAPI) -> None:
    for path, operations in fuzzed.openapi()["paths"].items():
        for method, operation in operations.items():
            for status, response in operation["responses"].items():
                if status[0] in "45":
                    assert set(response["content"]) == {"application/problem+json"}, (method, path)


def test_what_a_repeated_idempotency_key_gets_is_described(fuzzed: FastAPI) -> None:
    """200 in place of 201, with what the first request made."""
    found = 0
    for path, operations in fuzzed.openapi()["paths"].items():
        for method, operation in operations.items():
            names = {p.get("name", "").lower() for p in operation.get("parameters", [])}
            if "idempotency-key" in names:
                found += 1
                answers = operation["responses"]
                made, known = (
                    answers[code]["content"]["application/json"] for code in ("201", "200")
                )
                kinds = known["schema"].get("anyOf", [known["schema"]])
                assert made["schema"] in kinds, (method, path)
    assert found >= 4


def test_health_and_metrics_answer(fuzzed: FastAPI) -> None:
    with TestClient(fuzzed, base_url="http://127.0.0.1") as client:
        assert client.get("/healthz").json() == {"status": "ok"}
        assert client.get("/readyz").status_code == 200
        text = client.get("/metrics").text
        assert 'mlhf_jobs{status="queued"}' in text
        assert "mlhf_http_request_seconds" in text
