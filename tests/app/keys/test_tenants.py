"""Two tenants: whatever one knows of the other's, by any route, is not there.

The table below names a way into every route that takes an id. A route without a line in it
fails, so that none is forgotten.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.api.policy import DECISIONS
from mlhf_service.database import Database, now
from mlhf_service.datasets import progress
from mlhf_service.jobs.models import JobEvent
from mlhf_service.keys.logins import begin
from mlhf_service.keys.schemas import NewKey
from mlhf_service.kit.ids import new_id
from mlhf_service.meta_checkpoints.models import MetaCheckpoint
from mlhf_service.networks.models import Network
from mlhf_service.runs.projects import Project
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.webhooks.models import Webhook, WebhookDelivery
from tests.app.conftest import Rows
from tests.app.keys.conftest import MakeKey

SPEC: dict[str, Any] = {
    "kind": "train",
    "model": {"name": "mlp"},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam"},
    "budget": {"steps": 1},
}
NOTHING_OWNED = {  # parameters of these name what is everybody's
    "/v1/models/{name}",
    "/models/{name}",
    "/optimizers/{name}",
    "/v1/optimizers/{name}",
    "/v1/losses/{name}",
    "/v1/dataset-formats/{name}",
    "/static/{path:path}",
    "/v1/meta-checkpoints/aliases/{optimizer}/{alias}",  # a tenant's own names: tested below
}

BODIES: dict[str, dict[str, Any]] = {  # that are right, by what follows the id
    "/predict": {"json": {"rows": [[1.0]]}},
    "/predict-file": {"data": {"format": "csv"}, "files": {"file": ("x.csv", b"x\n1\n")}},
    "/export": {"json": {"format": "pt2"}},
    "/points": {"json": {"sequence": 1, "points": []}},
    "/finish": {"json": {"status": "succeeded"}},
}
SIZES = {  # of a network
    "inputs": [{"name": "x", "shape": [2], "dtype": "float32"}],
    "outputs": {"": {"shape": [1], "dtype": "float32"}},
    **{"parameters": 3, "frozen": 0, "activations": 1, "constants": 0, "depth": 1},
    **{"normalized_over": None, "matrices": [[1, 3]]},
}


@dataclass(frozen=True)
class Owned:
    """What tenant a has, and the clients of a and of b."""

    a: TestClient
    b: TestClient
    ids: dict[str, str]


@pytest.fixture
def owned(
    as_: Callable[[NewKey], TestClient],
    make_key: MakeKey,
    rows: Rows,
    database: Database,
    storage: FolderStorage,
) -> Owned:
    key = make_key("admin")
    a, b = as_(key), as_(make_key("admin", tenant="b"))
    mine = {"tenant": "a", "key_id": key.id}
    job = rows.job(**mine, spec=SPEC)
    run = rows.run(job, **mine)
    second = rows.run(job, position=1, **mine)
    for each in (run, second):
        rows.points(each, "train_loss", {1: 1.0, 2: 0.5})
    rows.artifact(run, "model.safetensors", b"weights of a")
    with database.write() as session:
        session.add(
            JobEvent(job_id=job, seq=1, type="log", data={"message": "secret of a"}, at=now())
        )
        stored = storage.put("meta-checkpoints/a.safetensors", b"weights of a")
        identity = "mc_00000000000000000000000000"
        session.add(
            MetaCheckpoint(
                id=identity,
                name="of a",
                optimizer="l2l",
                source="upload",
                lineage={},
                size=stored.size,
                sha256=stored.sha256,
                storage_key=stored.key,
                created_at=now(),
                **mine,
            )
        )
        webhook, delivery = new_id("wh"), new_id("msg")
        session.add(
            Webhook(
                id=webhook,
                url="https://of-a.example/hook",
                description="of a",
                events=["job.*"],
                metrics=[],
                secret="whsec_of_a",
                created_at=now(),
                **mine,
            )
        )
        network = new_id("net")
        graph = storage.put(f"networks/{network}/network.json", b"{}")
        session.add(
            Network(
                id=network,
                name="of a",
                sizes=SIZES,
                weights=False,
                sha256=graph.sha256,
                size=graph.size,
                storage_key=f"networks/{network}",
                created_at=now(),
                **mine,
            )
        )
        project = new_id("prj")
        session.add(Project(id=project, name="of a", created_at=now(), **mine))
        login = begin(session, {"tenant": "a", "id": key.id, "name": "of a"}, 1.0, None, None)
        session.flush()
        session.add(
            WebhookDelivery(
                id=delivery,
                tenant="a",
                webhook_id=webhook,
                key="one",
                type="job.succeeded",
                body="{}",
                status="failed",
                created_at=now(),
            )
        )
    uploaded = a.post(
        "/v1/datasets",
        data={"name": "of a", "format": "table", "params": '{"target": "y"}'},
        files={"file": ("x.csv", b"x,y\n" + b"1,2\n3,4\n" * 20)},
    )
    assert uploaded.status_code == 201, uploaded.text
    kept = {"name": "of a", "rule": {"keep_newest": 1000}, "enabled": False}
    rule = a.post("/v1/retention", json=kept)
    assert rule.status_code == 201, rule.text
    ids = {
        "job_id": job,
        "run_id": run,
        "second": second,
        "name:path": "model.safetensors",
        "dataset_id": uploaded.json()["id"],
        "identity": identity,
        "key_id": key.id,
        "login_id": login,
        "network_id": network,
        "project_id": project,
        "rule_id": rule.json()["id"],
        "webhook_id": webhook,
        "delivery_id": delivery,
    }
    return Owned(a, b, ids)


def with_ids() -> list[tuple[str, str]]:
    return sorted(
        (method, path)
        for method, path in DECISIONS
        if "{" in path and path not in NOTHING_OWNED and "progress_id" not in path
    )


@pytest.mark.parametrize("change", [False, True])
def test_another_tenant_s_ids_are_not_there(owned: Owned, change: bool) -> None:
    """First what reads, as b and as a; then what changes, as b."""
    checked = 0
    for method, template in with_ids():
        if (method not in ("GET", "HEAD")) is not change:
            continue
        names = re.findall(r"\{([^}]*)\}", template)
        missing = set(names) - set(owned.ids)
        assert not missing, f"{template}: say here which id of tenant a is its {missing}"
        path = re.sub(r"\{([^}]*)\}", lambda match: owned.ids[match[1]], template)
        body = BODIES.get(template.rpartition("}")[2], {"json": {}})
        if method == "PATCH" and re.match("/v1/(jobs|runs|projects)/", path):
            body = {"json": {"name": "b"}}
        body = body if method in ("POST", "PATCH") else {}
        answer = owned.b.request(method, path, **body)
        assert answer.status_code == 404, f"{method} {path}: {answer.status_code}"
        assert "of a" not in answer.text
        if not change:
            known = owned.a.request(method, path)
            assert known.status_code == 200, f"{method} {path}: {known.status_code}"
        checked += 1
    assert checked > 5


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/v1/comparisons?run={run_id}&run={second}", 404),
        ("/v1/comparisons?job={job_id}", 404),
        ("/v1/comparisons?job={job_id}&format=csv", 404),
        ("/v1/ablations?job={job_id}", 404),
        ("/compare?job={job_id}", 404),
        ("/compare?run={run_id}&run={second}", 404),
    ],
)
def test_ids_in_queries_are_not_there(owned: Owned, path: str, status: int) -> None:
    path = path.format(**owned.ids)
    assert owned.b.get(path).status_code == status
    assert owned.a.get(path).status_code in (200, 422)  # no ablation, but there


def test_lists_show_the_own_only(owned: Owned) -> None:
    paths = (
        "/v1/jobs",
        "/v1/runs",
        "/v1/datasets?limit=500",
        "/v1/meta-checkpoints",
        "/v1/keys",
        "/v1/webhooks",
    )
    secret = {*owned.ids.values()} - {"model.safetensors"}
    for path in (*paths, "/", "/runs", "/datasets", f"/v1/runs?job_id={owned.ids['job_id']}"):
        shown = owned.b.get(path)
        assert shown.status_code == 200
        assert not [one for one in secret if one in shown.text], path
        assert any(one in owned.a.get(path).text for one in secret), path
    filters = "status=succeeded&kind=train&optimizer=adam&model=mlp&dataset=digits&q=a"
    assert owned.b.get(f"/v1/jobs?{filters}").json()["data"] == []
    assert len(owned.a.get(f"/v1/jobs?{filters}").json()["data"]) == 1


def test_what_is_everybody_s_is_there(owned: Owned) -> None:
    for client in (owned.a, owned.b):
        assert client.get("/v1/datasets/digits").status_code == 200
        shipped = [
            one["id"]
            for one in client.get("/v1/meta-checkpoints").json()["data"]
            if one["source"] == "shipped"
        ]
        assert shipped
        assert client.get(f"/v1/meta-checkpoints/{shipped[0]}/file").status_code == 200


def test_jobs_cannot_name_what_is_another_s(owned: Owned) -> None:
    mine = {**SPEC, "dataset": {"name": owned.ids["dataset_id"]}, "batch_size": 4}
    assert owned.b.post("/v1/jobs?validate_only=true", json=mine).status_code == 422
    learned = {"name": "l2l", "params": {"meta_checkpoint": owned.ids["identity"]}}
    answer = owned.b.post("/v1/jobs?validate_only=true", json={**SPEC, "optimizer": learned})
    assert answer.status_code == 422
    assert "no meta-checkpoint of this id" in answer.json()["detail"]
    known = owned.a.post("/v1/jobs?validate_only=true", json={**SPEC, "optimizer": learned})
    assert known.status_code == 200


def test_aliases_are_a_tenant_s(owned: Owned) -> None:
    path, body = (
        "/v1/meta-checkpoints/aliases/l2l/best",
        {"meta_checkpoint_id": owned.ids["identity"]},
    )
    assert owned.b.put(path, json=body).status_code == 404
    assert owned.a.put(path, json=body).status_code == 200
    assert owned.b.delete(path).status_code == 204
    listed = owned.a.get("/v1/meta-checkpoints").json()["data"]
    assert ["best"] in [one["aliases"] for one in listed]


def test_idempotency_keys_are_a_tenant_s(owned: Owned) -> None:
    headers = {"Idempotency-Key": "same"}
    made = [
        client.post("/v1/jobs", json={**SPEC, "seed": seed}, headers=headers)
        for seed, client in enumerate((owned.a, owned.b))
    ]
    assert [one.status_code for one in made] == [201, 201]
    assert made[0].json()["id"] != made[1].json()["id"]
    again = owned.b.post("/v1/jobs", json={**SPEC, "seed": 1}, headers=headers)
    assert (again.status_code, again.json()["id"]) == (200, made[1].json()["id"])


def test_uploads_in_progress_are_a_tenant_s(owned: Owned, settings: Settings) -> None:
    identity = "0123456789abcdef"
    with progress.reporting(settings, "a", identity, 1) as reporter:
        reporter.enter("checking")
        path = f"/v1/datasets/progress/{identity}"
        assert owned.a.get(path).json()["stage"] == "checking"
        assert owned.b.get(path).json()["stage"] == "waiting"


def test_what_is_made_says_whose_it_is(owned: Owned, database: Database) -> None:
    from mlhf_service.jobs.models import Job

    made = owned.a.post("/v1/jobs", json=SPEC).json()["id"]
    with database.read() as session:
        job = session.get_one(Job, made)
        assert (job.tenant, job.key_id) == ("a", owned.ids["key_id"])
        assert {(run.tenant, run.key_id) for run in job.runs} == {("a", owned.ids["key_id"])}


def test_another_tenant_s_are_not_deleted_in_bulk(owned: Owned) -> None:
    everything = {"dry_run": False, "force": True, "cancel": True}
    ids = [owned.ids[name] for name in ("job_id", "run_id", "dataset_id", "identity")]
    for chosen in ({"ids": ids}, {"filter": {"q": "a"}}, {"filter": {"kind": "train"}}):
        answer = owned.b.post("/v1/deletions", json={**everything, **chosen})
        assert answer.status_code == 200, answer.text
        assert answer.json()["deleted"] == []
    for change in ("archive", "delete", "move"):
        form = {"do": change, "run": owned.ids["run_id"], "sure": "true", "project": "theirs"}
        owned.b.post("/runs", data=form, follow_redirects=False)
    kept = owned.a.get(f"/v1/runs/{owned.ids['run_id']}").json()
    assert (kept["archived_at"], kept["project"]) == (None, "default")
    for path in ("jobs/{job_id}", "datasets/{dataset_id}", "meta-checkpoints/{identity}"):
        assert owned.a.get("/v1/" + path.format(**owned.ids)).status_code == 200
