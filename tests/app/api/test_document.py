"""The API's document is valid, names everything, and its examples work as they stand."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

from mlhf_service.api import examples
from mlhf_service.kit.problems import Problem, ProblemDocument


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    path = tmp_path / "data" / "mlhf.sqlite3"
    path.parent.mkdir()
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


def operations(document: dict[str, Any]) -> dict[str, tuple[str, str, dict[str, Any]]]:
    return {
        operation["operationId"]: (method, path, operation)
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }


def test_the_document_is_valid(app: FastAPI) -> None:
    validator = pytest.importorskip("openapi_spec_validator")
    validator.validate(json.loads(json.dumps(app.openapi())))


def test_the_document_can_be_read_as_yaml(app: FastAPI, client: TestClient) -> None:
    """As many tools read it; YAML has no control characters, and JSON need not escape DEL."""
    text = client.get("/openapi.json").text
    assert [c for c in text if not c.isprintable()] == []


def test_a_client_can_be_generated(app: FastAPI, tmp_path: Path) -> None:
    pytest.importorskip("openapi_python_client")
    (tmp_path / "openapi.json").write_text(json.dumps(app.openapi()))
    asked = ["generate", "--path", "openapi.json", "--meta", "none", "--output-path", "made"]
    done = subprocess.run(
        [sys.executable, "-m", "openapi_python_client", *asked],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stdout, done.stdout
    assert (tmp_path / "made" / "api" / "jobs" / "create_job.py").exists()


def test_everything_is_named_and_described(app: FastAPI) -> None:
    document = app.openapi()
    count = sum(map(len, document["paths"].values()))
    assert len(operations(document)) == count, "two operations have one operationId"
    for name, (_, _, operation) in operations(document).items():
        assert operation.get("summary"), name
        assert operation.get("description"), name
        for parameter in operation.get("parameters", ()):
            assert " " in parameter.get("description", ""), (name, parameter["name"])
    for schema, described in document["components"]["schemas"].items():
        for field, value in described.get("properties", {}).items():
            said = value.get("description", "")
            assert " " in said, f"{schema}.{field}: add the word to api/vocabulary.py"


# What these need is made in tests/service/test_docs_page.py, which presses all of them.
OF_OTHER_THINGS = {
    "log_points",
    "finish_logged_run",
    "predict",
    "export",
    "set_alias",
    "rotate_key",
    "change_webhook",
    "change_rule",
}


def test_every_json_body_has_an_example(app: FastAPI) -> None:
    for name, (_, _, operation) in operations(app.openapi()).items():
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            assert content["application/json"].get("examples"), f"{name}: add it to examples.py"


def test_every_example_of_a_body_is_accepted(client: TestClient, app: FastAPI) -> None:
    known = operations(app.openapi())
    job = client.post("/v1/jobs", json=examples.JOBS["train"]).json()
    project = client.post("/v1/projects", json={"name": "to be renamed"}).json()
    ids = {"job_id": job["id"], "run_id": job["run_ids"][0], "project_id": project["id"]}
    for name, bodies in examples.BODIES.items():
        if name in OF_OTHER_THINGS:
            continue
        method, path, operation = known[name]
        shown = operation["requestBody"]["content"]["application/json"]["examples"]
        assert [each["value"] for each in shown.values()] == list(bodies.values())
        for body in bodies.values():
            response = client.request(method, path.format(**ids), json=body)
            assert response.status_code in (200, 201), (name, response.text)


def test_every_type_of_problem_has_an_example() -> None:
    common = {kind.slug for kind in Problem.__subclasses__() if "kit.problems" in kind.__module__}
    assert common | {Problem.slug} == set(examples.PROBLEMS)
    for slug, example in examples.PROBLEMS.items():
        assert ProblemDocument.model_validate(example).type == f"/problems/{slug}"
