"""What retention rules keep and drop."""

from datetime import timedelta
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database, now
from mlhf_service.jobs.models import JobTag
from mlhf_service.retention import service
from mlhf_service.retention.models import RetentionRule
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.upkeep import Upkeep
from tests.app.conftest import Rows


@pytest.fixture
def jobs(rows: Rows) -> dict[str, str]:
    """Jobs that ended so many days ago, each with a file of 100 bytes; one runs."""
    made = {}
    for name, days, status, tags in (
        ("old", 40, "succeeded", {}),
        ("kept", 40, "succeeded", {"keep": "yes"}),
        ("failed", 20, "failed", {"team": "a"}),
        ("recent", 1, "succeeded", {}),
        ("running", 0, "running", {}),
    ):
        ended = now() - timedelta(days=days) if status != "running" else None
        tagged = [JobTag(key=key, value=value) for key, value in tags.items()]
        made[name] = rows.job(name=name, status=status, finished_at=ended, tags=tagged)
        run = rows.run(made[name], status=status, finished_at=ended)
        rows.artifact(run, "model.safetensors", b"x" * 100)
    return made


@pytest.mark.parametrize(
    ("rule", "dropped"),
    [
        ({"older_than_days": 30}, ["old", "kept"]),
        ({"older_than_days": 30, "unless_tags": {"keep": None}}, ["old"]),
        ({"older_than_days": 30, "unless_tags": {"keep": "no"}}, ["old", "kept"]),
        ({"older_than_days": 10, "status": ["failed"]}, ["failed"]),
        ({"older_than_days": 0, "tags": {"team": "a"}}, ["failed"]),
        ({"older_than_days": 0, "tags": {"team": "b"}}, []),
        ({"keep_newest": 3}, ["old"]),
        ({"keep_newest": 1}, ["old", "kept", "failed"]),
        ({"keep_newest": 1, "older_than_days": 30}, ["old", "kept"]),
        ({"keep_newest": 0, "status": ["succeeded"]}, ["old", "kept", "recent"]),
        ({"keep_bytes": 250}, ["old", "kept"]),
        ({"keep_bytes": 0}, ["old", "kept", "failed", "recent"]),
        ({"keep_bytes": 10**9}, []),
        ({"older_than_days": 0, "kind": "sweep"}, []),
        ({"older_than_days": 0, "archived": True}, []),
    ],
)
def test_a_preview_names_what_a_rule_drops(
    client: TestClient, jobs: dict[str, str], rule: dict[str, Any], dropped: list[str]
) -> None:
    found = client.post("/v1/retention/preview", json=rule)
    assert found.status_code == 200, found.text
    expected = [jobs[name] for name in dropped]
    assert found.json() == {
        "total": len(expected),
        "bytes": 100 * len(expected),
        "ids": expected,
    }
    assert len(client.get("/v1/jobs").json()["data"]) == 5


def test_the_upkeep_carries_rules_out_and_names_what_it_keeps(
    client: TestClient,
    settings: Settings,
    database: Database,
    storage: FolderStorage,
    rows: Rows,
    jobs: dict[str, str],
) -> None:
    from tests.app.deletions.test_deletions import meta_checkpoint

    made = meta_checkpoint(database, job_id=jobs["old"])
    other = rows.job(tenant="other", finished_at=now() - timedelta(days=90))
    rule = {"name": "old ones", "rule": {"older_than_days": 30}}
    identity = client.post("/v1/retention", json=rule).json()["id"]
    assert service.run_due(settings, database, storage) == 1
    left = {job["id"] for job in client.get("/v1/jobs").json()["data"]}
    assert left == {jobs[name] for name in ("old", "failed", "recent", "running")}
    shown = client.get(f"/v1/retention/{identity}").json()
    assert shown["last_result"]["dropped"] == 1
    (kept,) = shown["last_result"]["kept"]
    assert (kept["id"], kept["dependants"][0]["id"]) == (jobs["old"], made)
    with database.read() as session:
        from mlhf_service.jobs.models import Job

        assert session.get(Job, other) is not None, "another tenant's"
    assert service.run_due(settings, database, storage) == 0, "not due for a while"
    upkeep = Upkeep(settings, database, storage)
    upkeep.pass_once()
    assert len(list(storage.list("runs"))) == 4


def test_archive_instead(client: TestClient, jobs: dict[str, str]) -> None:
    rule = {"name": "a", "rule": {"older_than_days": 10, "action": "archive"}, "enabled": False}
    identity = client.post("/v1/retention", json=rule).json()["id"]
    assert client.post(f"/v1/retention/{identity}/run").json()["dropped"] == 3
    assert client.post(f"/v1/retention/{identity}/run").json()["dropped"] == 0
    archived = client.get("/v1/jobs", params={"archived": "true"}).json()["data"]
    assert {job["id"] for job in archived} == {jobs[n] for n in ("old", "kept", "failed")}


def test_checkpoints_alone(
    client: TestClient, rows: Rows, storage: FolderStorage, jobs: dict[str, str]
) -> None:
    def checkpoints(job: str, status: str, days: int) -> str:
        ended = now() - timedelta(days=days)
        run = rows.run(job, position=1, status=status, finished_at=ended)
        for step in (1, 2):
            rows.artifact(run, f"checkpoint-{step}", b"12345", kind="checkpoint", step=step)
        return run

    old = checkpoints(jobs["old"], "succeeded", 40)
    checkpoints(jobs["running"], "running", 40)
    checkpoints(jobs["recent"], "succeeded", 1)
    rule = {"target": "checkpoints", "older_than_days": 7}
    found = client.post("/v1/retention/preview", json=rule).json()
    assert found["ids"] == [f"{old}/checkpoint-1", f"{old}/checkpoint-2"]
    assert found["bytes"] == 10
    found = client.post("/v1/retention/preview", json={**rule, "keep_newest": 1}).json()
    assert found["ids"] == [f"{old}/checkpoint-1"]
    identity = client.post("/v1/retention", json={"name": "c", "rule": rule}).json()["id"]
    assert client.post(f"/v1/retention/{identity}/run").json()["dropped"] == 2
    names = [a["name"] for a in client.get(f"/v1/runs/{old}/artifacts").json()["data"]]
    assert not any(name.startswith("checkpoint") for name in names)
    assert not [e for e in storage.list("runs") if e.key.startswith(f"runs/{old}/")]


def test_rules_are_a_resource(client: TestClient, database: Database) -> None:
    for wrong in (
        {},
        {"status": ["failed"]},
        {"keep_newest": -1},
        {"target": "checkpoints", "action": "archive", "older_than_days": 1},
        {"target": "checkpoints", "keep_bytes": 1},
        {"older_than_days": 1, "status": ["running"]},
    ):
        refused = client.post("/v1/retention", json={"name": "a", "rule": wrong})
        assert refused.status_code == 422
    made = client.post("/v1/retention", json={"name": "a", "rule": {"keep_newest": 5}}).json()
    address = f"/v1/retention/{made['id']}"
    assert client.patch(address, json={"enabled": False}).json()["enabled"] is False
    assert client.patch(address, json={"name": "b"}).json()["rule"]["keep_newest"] == 5
    with database.write() as session:
        session.get_one(RetentionRule, made["id"]).tenant = "other"
    for method in ("GET", "DELETE"):
        assert client.request(method, address).status_code == 404
    assert client.post(f"{address}/run").status_code == 404
    assert client.get("/v1/retention").json()["data"] == []
    with database.write() as session:
        session.get_one(RetentionRule, made["id"]).tenant = "local"
    assert client.delete(address).status_code == 204
