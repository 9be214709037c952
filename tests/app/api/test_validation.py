"""What is wrong with a request is said with the names that there are; typos change nothing."""

import gzip
import shutil
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from tests.app.conftest import Rows

JOB = {
    "kind": "train",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam"},
    "budget": {"steps": 5},
}


@pytest.fixture
def database_url(tmp_path: Path, sqlite_template: Path) -> str:
    """One kind of database is enough: nothing here is about what is stored."""
    path = tmp_path / "data" / "mlhf.sqlite3"
    path.parent.mkdir()
    shutil.copy(sqlite_template, path)
    return f"sqlite:///{path}"


@pytest.mark.parametrize(
    ("changes", "pointer", "said"),
    [
        ({"kind": "trian"}, "/kind", "did you mean 'train'?"),
        ({"batchsize": 3}, "/batchsize", "did you mean 'batch_size'?"),
        ({"budget": {"epoch": 3}}, "/budget/epoch", "did you mean 'epochs'?"),
        ({"optimizer": {"name": "adma"}}, "/optimizer/name", "did you mean 'adam'?"),
        (
            {"optimizer": {"name": "adam", "params": {"schedule": {"name": "cosine"}}}},
            "/optimizer/params/schedule/type",
            "'type' is missing: it must be one of constant, cosine, linear, step",
        ),
        ({"seed": "3"}, "/seed", 'must be a number, not text; given: "3"'),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(
    client: TestClient, changes: dict[str, Any], pointer: str, said: str
) -> None:
    response = client.post("/v1/jobs", json={**JOB, **changes})
    assert response.status_code == 422
    [error] = response.json()["errors"]
    assert error["pointer"] == pointer
    assert said in error["detail"]
    assert response.json()["detail"] == f"{pointer or 'body'}: {error['detail']}"


def test_a_value_of_a_grid_is_pointed_to(client: TestClient) -> None:
    body = {key: value for key, value in JOB.items() if key != "optimizer"} | {"kind": "sweep"}
    body["optimizers"] = [{"name": "adam", "grid": {"beta1": [0.9, 1.9]}}]
    [error] = client.post("/v1/jobs", json=body).json()["errors"]
    assert error["pointer"] == "/optimizers/0/grid/beta1/1"


def test_a_body_that_is_not_sent_as_json_says_which_header_is_missing(client: TestClient) -> None:
    response = client.post("/v1/jobs", content=b"{}", headers={"Content-Type": "text/plain"})
    assert response.status_code == 422
    assert "Content-Type: application/json" in response.json()["detail"]


def test_unknown_query_parameters_are_refused(client: TestClient) -> None:
    response = client.get("/v1/jobs?state=failed&limit=3")
    assert response.status_code == 422
    assert "did you mean 'status'?" in response.json()["detail"]
    assert [error["pointer"] for error in response.json()["errors"]] == ["state"]
    assert client.post("/v1/jobs?validate=true", json=JOB).status_code == 422
    assert client.get("/v1/runs/run_x/artifacts/a.bin?x=1").status_code == 422


def test_a_tag_is_a_key_or_a_key_and_a_value(client: TestClient) -> None:
    refused = client.get("/v1/jobs?tag=purpose=test")
    assert refused.status_code == 422
    assert "must be key or key:value" in refused.json()["detail"]
    assert client.get("/v1/jobs?tag=purpose:test").status_code == 200


def test_long_answers_are_compressed_but_files_are_not(client: TestClient, rows: Rows) -> None:
    run_id = rows.run(rows.job(status="succeeded"), status="succeeded")
    rows.artifact(run_id, "model.safetensors", b"0" * 4096)
    with client.stream("GET", "/openapi.json", headers={"Accept-Encoding": "gzip"}) as response:
        assert response.headers["Content-Encoding"] == "gzip"
        raw = b"".join(response.iter_raw())
    assert gzip.decompress(raw) == client.get("/openapi.json").content
    path = f"/v1/runs/{run_id}/artifacts/model.safetensors"
    file = client.get(path, headers={"Accept-Encoding": "gzip"})
    assert file.status_code == 200
    assert "Content-Encoding" not in file.headers
    assert file.headers["Content-Length"] == "4096"
