"""Quotas of a tenant and of a key: counted as they are stored, refused by name."""

from collections.abc import Callable

import pytest
from fastapi.testclient import TestClient

from mlhf_service.context import Caller, Quota
from mlhf_service.database import Database
from mlhf_service.keys.quotas import QuotaExceeded, require_room, stored_bytes
from mlhf_service.keys.schemas import NewKey
from mlhf_service.settings import Settings
from tests.app.conftest import Rows
from tests.app.keys.conftest import MakeKey

SPEC = {
    "kind": "sweep",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizers": [{"name": "adam"}],
    "seeds": [0, 1],
    "budget": {"steps": 1},
}


def test_jobs_and_runs_of_a_tenant(
    settings: Settings, as_: Callable[[NewKey], TestClient], make_key: MakeKey
) -> None:
    settings.quota_jobs, settings.quota_queued_runs = 2, 4
    first, second, other = make_key("write"), make_key("write"), make_key("write", tenant="b")
    assert as_(first).post("/v1/jobs", json=SPEC).status_code == 201
    assert as_(second).post("/v1/jobs", json=SPEC).status_code == 201
    refused = as_(first).post("/v1/jobs", json=SPEC)
    assert refused.status_code == 403
    assert refused.json()["type"] == "/problems/quota-exceeded"
    assert "At most 2 jobs" in refused.json()["detail"]
    settings.quota_jobs = 3
    assert "runs that wait" in as_(first).post("/v1/jobs", json=SPEC).json()["detail"]
    assert as_(other).post("/v1/jobs", json=SPEC).status_code == 201
    job = as_(first).get("/v1/jobs").json()["data"][0]["id"]
    assert as_(first).post(f"/v1/jobs/{job}/cancel").status_code == 200
    assert as_(first).post("/v1/jobs", json=SPEC).status_code == 201


def test_jobs_of_a_key(as_: Callable[[NewKey], TestClient], make_key: MakeKey) -> None:
    limited, other = make_key("write", quota=Quota(jobs=1)), make_key("write")
    job = as_(limited).post("/v1/jobs", json=SPEC)
    assert job.status_code == 201
    assert as_(limited).post(f"/v1/jobs/{job.json()['id']}/clone").status_code == 403
    assert as_(other).post("/v1/jobs", json=SPEC).status_code == 201


def test_stored_bytes(database: Database, settings: Settings, rows: Rows) -> None:
    run = rows.run(rows.job(tenant="a"), tenant="a", key_id="key_1")
    rows.artifact(run, "model.safetensors", b"x" * 100)
    settings.quota_storage_bytes = 150
    with database.write() as session:
        assert stored_bytes(session, "tenant", "a") == 100
        assert stored_bytes(session, "key_id", "key_1") == 100
        assert stored_bytes(session, "tenant", "b") == 0
        require_room(session, settings, Caller("a"), stored=50)
        with pytest.raises(QuotaExceeded, match="150 bytes"):
            require_room(session, settings, Caller("a"), stored=51)
        require_room(session, settings, Caller("b"), stored=150)
        own = Caller("b", "key_1", "small", quota=Quota(storage_bytes=100))
        with pytest.raises(QuotaExceeded, match="the key small"):
            require_room(session, settings, own, jobs=1)


def test_an_upload_that_is_too_much_leaves_nothing(
    settings: Settings, as_: Callable[[NewKey], TestClient], make_key: MakeKey
) -> None:
    settings.quota_storage_bytes = 10
    client = as_(make_key("write"))
    answer = client.post(
        "/v1/datasets",
        data={"name": "x", "format": "table", "params": '{"target": "y"}'},
        files={"file": ("x.csv", b"x,y\n" + b"1,2\n3,4\n" * 20)},
    )
    assert answer.status_code == 403
    assert client.get("/v1/datasets").json()["data"][-1]["source"] == "builtin"
    stored = settings.root / "artifacts" / "datasets"
    assert not stored.exists() or not list(stored.iterdir())
