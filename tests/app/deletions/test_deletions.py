"""What is deleted is gone whole, once; what others depend on is named, and stays."""

from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select, update

from mlhf_service.database import Base, Database, db_now, now
from mlhf_service.datasets.models import Dataset
from mlhf_service.deletions import files
from mlhf_service.deletions.models import DeletionHold, FileDeletion
from mlhf_service.jobs import idempotency
from mlhf_service.jobs.models import Job, JobEvent, JobTag
from mlhf_service.kit.ids import new_id
from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.runs.models import Run
from mlhf_service.storage.folder import FolderStorage
from tests.app.conftest import Rows


def meta_checkpoint(database: Database, **fields: Any) -> str:
    row = MetaCheckpoint(
        **{
            "id": new_id("mc"),
            "name": "one",
            "optimizer": "l2l",
            "source": "meta_train",
            "lineage": {},
            "size": 1,
            "sha256": "0" * 64,
            "storage_key": "meta-checkpoints/x.safetensors",
            "created_at": now(),
            **fields,
        }
    )
    with database.write() as session:
        session.add(row)
    return row.id


def full_job(database: Database, rows: Rows, **fields: Any) -> tuple[str, str]:
    """A job of one run, with everything that a job can have."""
    job = rows.job(tags=[JobTag(key="a", value="b")], event_seq=1, **fields)
    run = rows.run(job, status=fields.get("status", "succeeded"))
    rows.points(run, "train_loss", {1: 1.0, 2: 0.5})
    rows.artifact(run, "model.safetensors", b"weights")
    with database.write() as session:
        session.add(JobEvent(job_id=job, seq=1, type="log", data={}, at=now()))
    return job, run


def left(database: Database, *identities: str) -> dict[str, int]:
    """In which tables rows name one of the ids, in any column that names jobs or runs."""
    found = {}
    with database.read() as session:
        for table in Base.metadata.tables.values():
            columns = [c for c in table.c if c.name in ("job_id", "run_id", "id")]
            for column in columns:
                if column.type.python_type is not str:
                    continue
                count = select(func.count()).select_from(table).where(column.in_(identities))
                if number := session.scalar(count):
                    found[f"{table.name}.{column.name}"] = number
    return found


def test_a_job_goes_with_all_that_is_its_own(
    client: TestClient, database: Database, rows: Rows, storage: FolderStorage
) -> None:
    job, run = full_job(database, rows)
    other, other_run = full_job(database, rows, retried_from=job)
    storage.put(f"runs/{run}/3/orphan", b"of an attempt that was fenced")
    assert idempotency.reserve(database, "key", "0" * 64) is None
    with database.write() as session:
        idempotency.complete(session, "key", job)

    assert client.delete(f"/v1/jobs/{job}").status_code == 204

    assert left(database, job, run) == {}
    assert [e.key for e in storage.list("runs")] == [f"runs/{other_run}/model.safetensors"]
    assert client.get(f"/v1/jobs/{other}").json()["retried_from"] is None
    assert client.delete(f"/v1/jobs/{job}").status_code == 404
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(FileDeletion)) == 0


def test_what_has_not_ended_is_named_and_deleted_when_told(
    client: TestClient, database: Database, rows: Rows
) -> None:
    job, run = full_job(database, rows, status="running")
    refused = client.delete(f"/v1/jobs/{job}")
    assert refused.status_code == 409
    problem = refused.json()
    assert problem["type"] == "/problems/in-use"
    assert problem["dependants"] == [{"kind": "run", "id": run, "relation": "of it have not ended"}]
    assert "cancel=true" in problem["detail"]
    assert client.delete(f"/v1/jobs/{job}?force=true").status_code == 409
    assert client.delete(f"/v1/jobs/{job}?cancel=true").status_code == 204
    assert left(database, job, run) == {}
    with database.read() as session:  # once more, for what its trainer may write until it knows
        (later,) = session.scalars(select(FileDeletion))
        assert later.storage_key == f"runs/{run}"
        assert later.not_before > (session.scalar(select(db_now())) or 0.0)


def test_a_meta_checkpoint_outlives_its_job(
    client: TestClient, database: Database, rows: Rows, storage: FolderStorage
) -> None:
    job, run = full_job(database, rows)
    key = f"runs/{run}/1/meta_checkpoint.safetensors"
    storage.put(key, b"networks")
    made = meta_checkpoint(database, job_id=job, run_id=run, storage_key=key)
    refused = client.delete(f"/v1/jobs/{job}")
    assert [d["id"] for d in refused.json()["dependants"]] == [made]
    assert client.delete(f"/v1/jobs/{job}?force=true").status_code == 204
    assert left(database, job, run) == {}
    assert [e.key for e in storage.list("runs")] == [key]

    assert client.delete(f"/v1/meta-checkpoints/{made}").status_code == 204
    assert list(storage.list("runs")) == []


def test_a_meta_checkpoint_names_what_used_it(
    client: TestClient, database: Database, rows: Rows
) -> None:
    made = meta_checkpoint(database)
    child = meta_checkpoint(database, parent_id=made)
    with database.write() as session:
        session.add(MetaCheckpointAlias(optimizer="l2l", alias="best", meta_checkpoint_id=made))
    waiting = rows.run(meta_checkpoint_id=made, status="queued")
    for query in ("", "?force=true"):
        refused = client.delete(f"/v1/meta-checkpoints/{made}{query}")
        assert refused.status_code == 409
        assert [d["id"] for d in refused.json()["dependants"]] == [waiting]
    with database.write() as session:
        session.execute(update(Run).values(status="cancelled"))
    refused = client.delete(f"/v1/meta-checkpoints/{made}").json()
    assert {(d["kind"], d["id"]) for d in refused["dependants"]} == {
        ("alias", "best"),
        ("run", waiting),
        ("meta_checkpoint", child),
    }
    assert client.delete(f"/v1/meta-checkpoints/{made}?force=true").status_code == 204
    assert client.get(f"/v1/meta-checkpoints/{child}").json()["parent_id"] is None
    assert client.delete("/v1/meta-checkpoints/mc_shipped_l2l").status_code == 409
    assert client.delete(f"/v1/meta-checkpoints/{made}").status_code == 404


def test_a_data_set_that_a_meta_training_names_is_in_use(
    client: TestClient, database: Database, rows: Rows
) -> None:
    dataset = new_id("ds")
    with database.write() as session:
        session.add(
            Dataset(
                id=dataset,
                name="d",
                format="npz",
                params={},
                info={},
                sha256="0",
                size=1,
                storage_key=f"datasets/{dataset}",
                created_at=now(),
            )
        )
    tasks = [{"dataset": {"name": dataset, "params": {}}}]
    run = rows.run(kind="meta_train", status="queued", config={"tasks": tasks})
    for query in ("", "?force=true"):
        refused = client.delete(f"/v1/datasets/{dataset}{query}")
        assert refused.status_code == 409
        assert [d["id"] for d in refused.json()["dependants"]] == [run]


def test_one_run_of_several(client: TestClient, database: Database, rows: Rows) -> None:
    job, run = full_job(database, rows)
    only = client.delete(f"/v1/runs/{run}")
    assert only.status_code == 409
    assert only.json()["dependants"][0]["id"] == job
    second = rows.run(job, position=1)
    assert client.delete(f"/v1/runs/{run}").status_code == 204
    shown = client.get(f"/v1/jobs/{job}").json()
    assert (shown["run_ids"], shown["runs"]["succeeded"]) == ([second], 1)
    assert left(database, run) == {}


def test_deleting_the_last_run_that_waits_ends_its_job(client: TestClient, rows: Rows) -> None:
    job = rows.job(status="running")
    rows.run(job)
    waiting = rows.run(job, position=1, status="queued")
    assert client.delete(f"/v1/runs/{waiting}").status_code == 409
    assert client.delete(f"/v1/runs/{waiting}?cancel=true").status_code == 204
    assert client.get(f"/v1/jobs/{job}").json()["status"] == "succeeded"


def test_one_file(
    client: TestClient, database: Database, rows: Rows, storage: FolderStorage
) -> None:
    _, run = full_job(database, rows)
    running = rows.run(status="running")
    rows.artifact(running, "checkpoint-1", b"c", kind="checkpoint")
    assert client.delete(f"/v1/runs/{running}/artifacts/checkpoint-1").status_code == 409
    assert client.delete(f"/v1/runs/{run}/artifacts/model.safetensors").status_code == 204
    assert [e.key for e in storage.list("runs")] == [f"runs/{running}/checkpoint-1"]
    assert client.delete(f"/v1/runs/{run}/artifacts/model.safetensors").status_code == 404


def test_a_crash_after_the_commit_leaves_no_orphan(
    client: TestClient,
    database: Database,
    rows: Rows,
    storage: FolderStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, _run = full_job(database, rows)
    monkeypatch.setattr(files, "drain_soon", lambda *_: None)  # dies between commit and files
    assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert len(list(storage.list("runs"))) == 1
    with files.held(database):
        assert files.drain(database, storage) == 0, "a backup copies the files"
    assert files.drain(database, storage) == 1
    assert list(storage.list("runs")) == []
    assert files.drain(database, storage) == 0
    with database.read() as session:
        assert session.scalar(select(func.count()).select_from(DeletionHold)) == 0


def test_a_store_that_fails_is_asked_again(
    client: TestClient,
    database: Database,
    rows: Rows,
    storage: FolderStorage,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    job, _run = full_job(database, rows)

    def fail(self: FolderStorage, key: str) -> None:
        raise OSError("the store does not answer")

    with monkeypatch.context() as patched:
        patched.setattr(FolderStorage, "delete", fail)
        assert client.delete(f"/v1/jobs/{job}").status_code == 204
    assert files.drain(database, storage) == 1
    assert list(storage.list("runs")) == []


def test_many_at_once(client: TestClient, database: Database, rows: Rows) -> None:
    old = [full_job(database, rows, status="failed")[0] for _ in range(3)]
    full_job(database, rows)
    running, _ = full_job(database, rows, status="running")
    wanted = {"filter": {"status": ["failed"], "tags": {"a": "b"}}}
    tried = client.post("/v1/deletions", json=wanted).json()
    assert tried == {"dry_run": True, "deleted": old, "kept": [], "more": False}
    assert len(client.get("/v1/jobs").json()["data"]) == 5
    done = client.post("/v1/deletions", json={**wanted, "dry_run": False}).json()
    assert done["deleted"] == old
    again = client.post(
        "/v1/deletions", json={"ids": [*old, running, "xx_1"], "dry_run": False}
    ).json()
    assert again["deleted"] == []
    assert [k["type"] for k in again["kept"]] == [
        *["/problems/not-found"] * 3,
        "/problems/in-use",
        "/problems/not-found",
    ]
    for wrong in ({}, {"filter": {}}, {"ids": []}, {"ids": old, "filter": {"q": "a"}}):
        assert client.post("/v1/deletions", json=wrong).status_code == 422


def test_what_is_archived_is_hidden(client: TestClient, database: Database, rows: Rows) -> None:
    job, run = full_job(database, rows)
    running, _ = full_job(database, rows, status="running")
    assert client.post(f"/v1/jobs/{running}/archive").status_code == 409
    assert client.post(f"/v1/jobs/{job}/archive").json()["archived_at"]

    def listed(resource: str, **filters: str) -> list[str]:
        found = client.get(f"/v1/{resource}", params=filters).json()["data"]
        return [one["id"] for one in found]

    assert listed("jobs") == [running]
    assert listed("jobs", archived="true") == [job]
    assert len(listed("jobs", archived="any")) == 2
    assert run not in listed("runs")
    assert listed("runs", archived="true") == [run]
    assert listed("runs", job_id=job) == [run]
    assert client.get(f"/v1/jobs/{job}").status_code == 200
    assert client.post(f"/v1/jobs/{job}/unarchive").json()["archived_at"] is None
    assert len(listed("jobs")) == 2
    assert client.post(f"/v1/runs/{run}/archive").json()["archived_at"]
    assert run not in listed("runs")
    assert client.post(f"/v1/runs/{run}/unarchive").json()["archived_at"] is None


def test_another_tenant_s_are_not_there(client: TestClient, rows: Rows) -> None:
    job = rows.job(tenant="other")
    run = rows.run(job, tenant="other")
    for address in (f"/v1/jobs/{job}", f"/v1/runs/{run}"):
        assert client.delete(address).status_code == 404
        assert client.post(f"{address}/archive").status_code == 404
    tried = client.post("/v1/deletions", json={"ids": [job], "dry_run": False}).json()
    assert tried["deleted"] == []


def test_the_rows_of_a_job_are_gone_in_one_transaction(
    client: TestClient, database: Database, rows: Rows, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, run = full_job(database, rows)

    def fail(*_: object) -> None:
        raise RuntimeError("the process dies here")

    monkeypatch.setattr(files, "enqueue", fail)
    assert client.delete(f"/v1/jobs/{job}").status_code == 500
    with database.read() as session:
        assert session.get(Job, job) is not None
    assert left(database, run)
