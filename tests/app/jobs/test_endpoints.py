"""Jobs over HTTP, on both databases; no worker runs here."""

from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.database import Database
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.jobs.state import move, settle
from mlhf_service.queue.claims import claim_next
from mlhf_service.runs.models import Run

SPEC: dict[str, Any] = {
    "kind": "train",
    "name": "first",
    "tags": {"team": "red"},
    "model": {"name": "mlp", "params": {"hidden": [16]}},
    "dataset": {"name": "digits"},
    "optimizer": {"name": "adam", "params": {"lr": 0.01}},
    "budget": {"epochs": 2},
    "batch_size": 64,
    "seed": 3,
}
SWEEP: dict[str, Any] = {
    **{k: SPEC[k] for k in ("model", "dataset", "budget", "batch_size")},
    "kind": "sweep",
    "optimizers": [{"name": "sgd", "grid": {"lr": [0.1, 0.01]}}, {"name": "adam"}],
    "seeds": [0, 1],
}


def rows(database: Database, table: Any) -> list[Any]:
    with database.read() as session:
        return list(session.query(table))


def test_a_job_is_created_with_its_run_and_its_doorbell(
    client: TestClient, database: Database
) -> None:
    response = client.post("/v1/jobs", json=SPEC)
    assert response.status_code == 201
    job = response.json()
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    assert job["status"] == "queued"
    assert job["attempts"] == 0
    assert job["tags"] == {"team": "red"}
    assert job["spec"]["optimizer"] == {"name": "adam", "params": {"lr": 0.01}}
    read = client.get(f"/v1/jobs/{job['id']}").json()
    assert {**read, "waiting": None} == job  # why it waits is told of one job alone
    (run,) = rows(database, Run)
    assert [run.id] == job["run_ids"]
    assert (run.status, run.queue, run.seed) == ("queued", "cpu", 3)
    assert run.config["batch_size"] == 64
    params = run.config["optimizer"]["params"]
    assert params["lr"] == 0.01
    assert params["beta1"] == 0.9, "defaults are written out: an upgrade must not change them"
    assert [row.queue for row in rows(database, Outbox)] == ["cpu"]


def test_validate_only_creates_nothing(client: TestClient, database: Database) -> None:
    response = client.post("/v1/jobs?validate_only=true", json=SWEEP)
    assert response.status_code == 200
    estimate = response.json()
    assert estimate["runs"] == 6
    assert estimate["parameters"] == 64 * 16 + 16 + 16 * 10 + 10
    assert rows(database, Job) == rows(database, Run) == rows(database, Outbox) == []


@pytest.mark.parametrize(
    ("budget", "steps"),
    [({"samples": 3000}, 48), ({"samples": 100_000}, 1600), ({"epochs": 1.5}, 35)],
)
def test_an_estimate_counts_the_short_batch_of_each_epoch(
    client: TestClient, budget: dict[str, Any], steps: int
) -> None:
    body = {**SPEC, "model": {"name": "mlp"}, "optimizer": {"name": "sgd"}, "budget": budget}
    response = client.post("/v1/jobs?validate_only=true", json=body)
    assert response.json()["total_steps"] == steps


@pytest.mark.parametrize(
    ("changes", "pointer"),
    [
        ({"model": {"name": "nope"}}, "/model/name"),
        ({"model": {"name": "mlp", "params": {"hiden": [3]}}}, "/model/params/hiden"),
        ({"dataset": {"name": "nope"}}, "/dataset/name"),
        ({"dataset": {"name": "ds_0000"}}, "/dataset/name"),
        ({"optimizer": {"name": "nope"}}, "/optimizer/name"),
        ({"optimizer": {"name": "adam", "params": {"lr": -1}}}, "/optimizer/params/lr"),
        ({"optimizer": {"name": "adam", "params": {"lr": "x"}}}, "/optimizer/params/lr"),
        ({"model": {"name": "mlp", "params": {"hidden": [60000, 60000]}}}, "/model/params"),
        ({"batch_size": 5000}, "/batch_size"),
        ({"batch_size": 0}, "/batch_size"),
        ({"batch_size": 1.5}, "/batch_size"),
        ({"budget": {}}, "/budget"),
        ({"budget": {"epochs": -1}}, "/budget/epochs"),
        ({"seed": -1}, "/seed"),
        ({"seed": 10**30}, "/seed"),
        ({"name": "a\x00b"}, "/name"),
        ({"tags": {"a b": "c"}}, "/tags"),
        ({"surprise": 1}, "/surprise"),
        ({"kind": "nope"}, ""),
        ({"resources": {"device": "cuda"}}, "/resources/device"),
        (
            {
                "optimizer": {"name": "adam", "params": {"schedule": {"type": "cosine"}}},
                "budget": {"wall_seconds": 5},
            },
            "/optimizer/params/schedule",
        ),
        (
            {"model": {"name": "cuda_convnet"}, "dataset": {"name": "digits"}, "batch_size": 1000},
            None,
        ),
    ],
)
# One database is enough for what is refused.
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_bad_input_is_a_problem_with_a_pointer_and_creates_nothing(
    client: TestClient, database: Database, changes: dict[str, Any], pointer: str | None
) -> None:
    response = client.post("/v1/jobs", json={**SPEC, **changes})
    if pointer is None:  # allowed or refused for its size, but never an error of ours
        assert response.status_code in (201, 422)
        return
    assert response.status_code == 422, response.text
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == 422
    assert any(e["pointer"].startswith(pointer) for e in problem["errors"]), problem
    assert rows(database, Job) == rows(database, Run) == rows(database, Outbox) == []


@pytest.mark.parametrize("value", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_numbers_that_are_not_finite_are_refused(
    client: TestClient, database: Database, value: str
) -> None:
    for field in (
        '"optimizer":{"name":"adam","params":{"lr":%s}}',
        '"budget":{"epochs":%s}',
        '"target":{"value":%s}',
    ):
        body = (
            '{"kind":"train","model":{"name":"mlp"},"dataset":{"name":"digits"},'
            '"optimizer":{"name":"adam"},"budget":{"epochs":1},' + field % value + "}"
        )
        response = client.post(
            "/v1/jobs", content=body, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 422, response.text
    assert rows(database, Job) == []


def test_a_body_of_10_mb_is_refused(client: TestClient, database: Database) -> None:
    response = client.post("/v1/jobs", json={**SPEC, "name": "x" * 10_000_000})
    assert response.status_code == 413
    assert response.json()["title"] == "Content too large"

    def chunks() -> Any:  # without a declared length
        for _ in range(100):
            yield b" " * 100_000

    response = client.post(
        "/v1/jobs", content=chunks(), headers={"Content-Type": "application/json"}
    )
    assert response.status_code == 413
    assert rows(database, Job) == []


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b"\xff\xfe", b'"\\ud800"', b"[" * 100_000]
)
def test_what_is_no_job_at_all(client: TestClient, body: bytes) -> None:
    response = client.post("/v1/jobs", content=body, headers={"Content-Type": "application/json"})
    assert 400 <= response.status_code < 500
    assert response.headers["content-type"] == "application/problem+json"


def test_a_lone_surrogate_is_refused_in_words(client: TestClient) -> None:
    text = '{"kind":"train","model":{"name":"\\ud800"},"dataset":{"name":"digits"},'
    text += '"optimizer":{"name":"adam","params":{"\\ud800":1}},"budget":{"epochs":1}}'
    response = client.post("/v1/jobs", content=text, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["errors"]


def test_what_a_creation_answers_is_what_is_read_later(client: TestClient) -> None:
    made = client.post("/v1/jobs", json={**SPEC, "tags": {"a": "1"}})
    read = client.get(made.headers["Location"]).json()
    assert made.json() == {**read, "waiting": None}  # why it waits is told of one job alone


def test_jobs_are_listed_filtered_and_paged(client: TestClient) -> None:
    ids = [
        client.post("/v1/jobs", json={**SPEC, "name": f"job {n}"}).json()["id"] for n in range(5)
    ]
    sweep = client.post("/v1/jobs", json={**SWEEP, "tags": {"a": "b"}}).json()["id"]

    def listed(**params: Any) -> list[str]:
        response = client.get("/v1/jobs", params=params)
        assert response.status_code == 200, response.text
        return [job["id"] for job in response.json()["data"]]

    assert listed() == [sweep, *reversed(ids)]
    assert listed(sort="created_at") == [*ids, sweep]
    assert listed(kind="sweep") == listed(optimizer="sgd") == listed(tag="a") == [sweep]
    assert listed(tag="a:b") == [sweep]
    assert listed(tag="a:c") == listed(model="resnet") == listed(status="failed") == []
    assert listed(q="JOB 3") == [ids[3]]
    assert listed(q="%") == []
    assert set(listed(status=["queued", "running"])) == {sweep, *ids}

    seen: list[str] = []
    cursor: str | None = None
    for _ in range(10):
        page = client.get(
            "/v1/jobs",
            params={"limit": 2, "sort": "name", **({"cursor": cursor} if cursor else {})},
        ).json()
        seen += [job["name"] for job in page["data"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert seen == sorted(seen)
    assert len(seen) == 6


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=x",
        "cursor=!!",
        "cursor=W10",
        "cursor=WyJcdTAwMDAiXQ",
        "sort=x",
        "status=x",
        "q=%00",
        "limit=99999999999999999999",
    ],
)
def test_bad_queries_are_refused(client: TestClient, query: str) -> None:
    assert 400 <= client.get(f"/v1/jobs?{query}").status_code < 500


def test_unknown_jobs_are_not_found(client: TestClient) -> None:
    for method, path in [
        ("GET", ""),
        ("GET", "/events"),
        ("GET", "/logs"),
        ("POST", "/cancel"),
        ("POST", "/pause"),
        ("POST", "/resume"),
        ("POST", "/retry"),
        ("POST", "/clone"),
    ]:
        response = client.request(method, f"/v1/jobs/job_0000{path}")
        assert response.status_code == 404, path
        assert response.json()["title"] == "Not found"


def test_a_waiting_job_is_paused_resumed_and_cancelled(
    client: TestClient, database: Database
) -> None:
    job_id = client.post("/v1/jobs", json=SWEEP).json()["id"]
    paused = client.post(f"/v1/jobs/{job_id}/pause").json()
    assert (paused["status"], paused["desired"]) == ("paused", None)
    assert claim_next(database, "cpu", "me", 30.0) is None
    assert client.post(f"/v1/jobs/{job_id}/pause").status_code == 200
    assert client.post(f"/v1/jobs/{job_id}/resume").json()["status"] == "queued"
    assert client.post(f"/v1/jobs/{job_id}/resume").status_code == 409
    cancelled = client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert cancelled["status"] == "cancelled"
    assert cancelled["finished_at"] is not None
    assert client.post(f"/v1/jobs/{job_id}/cancel").status_code == 200
    for action in ("pause", "resume"):
        assert client.post(f"/v1/jobs/{job_id}/{action}").status_code == 409
    assert claim_next(database, "cpu", "me", 30.0) is None


def test_a_running_job_is_only_asked_to_stop(client: TestClient, database: Database) -> None:
    job_id = client.post("/v1/jobs", json=SWEEP).json()["id"]
    claim = claim_next(database, "cpu", "me", 30.0)
    assert claim is not None
    body = client.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (body["status"], body["desired"]) == ("running", "cancel")
    assert body["runs"]["cancelled"] == 5  # what waited is cancelled at once
    assert client.post(f"/v1/jobs/{job_id}/pause").status_code == 409


def end(database: Database, outcomes: dict[int, str]) -> None:
    """End the runs of the only job: position -> succeeded or failed."""
    with database.write() as session:
        job = session.query(Job).one()
        for run in session.query(Run):
            move(session, run, "running")
            error = {"type": "/problems/lost", "title": "Lost", "status": 500}
            outcome = outcomes.get(run.position, "succeeded")
            move(session, run, outcome, error if outcome == "failed" else None)
        settle(session, job)


def test_retry_makes_a_new_job_of_what_failed(client: TestClient, database: Database) -> None:
    job_id = client.post("/v1/jobs", json=SWEEP).json()["id"]
    assert client.post(f"/v1/jobs/{job_id}/retry").status_code == 409
    end(database, {1: "failed", 4: "failed"})
    old = client.get(f"/v1/jobs/{job_id}").json()
    assert old["status"] == "failed"
    assert old["error"]["title"] == "Lost"
    response = client.post(f"/v1/jobs/{job_id}/retry")
    assert response.status_code == 201
    new = response.json()
    assert new["retried_from"] == job_id
    assert len(new["run_ids"]) == 2
    assert client.get(f"/v1/jobs/{job_id}").json() == old


def test_clone_copies_with_changes(client: TestClient) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    changed = client.post(f"/v1/jobs/{job_id}/clone", json={"changes": {"seed": 8}})
    assert changed.status_code == 201
    assert changed.json()["cloned_from"] == job_id
    assert changed.json()["spec"]["seed"] == 8
    assert client.post(f"/v1/jobs/{job_id}/clone").json()["spec"]["seed"] == 3
    bad = client.post(f"/v1/jobs/{job_id}/clone", json={"changes": {"seed": -8}})
    assert bad.status_code == 422
    assert bad.json()["errors"][0]["pointer"] == "/changes/seed"


def test_events_are_numbered_streamed_and_resumable(client: TestClient, database: Database) -> None:
    job_id = client.post("/v1/jobs", json=SPEC).json()["id"]
    end(database, {})
    text = client.get(f"/v1/jobs/{job_id}/events").text
    ids = [int(line.split()[1]) for line in text.splitlines() if line.startswith("id:")]
    assert ids == list(range(1, len(ids) + 1))
    assert '"status":"succeeded"' in text
    rest = client.get(f"/v1/jobs/{job_id}/events", headers={"Last-Event-ID": "2"}).text
    assert [int(x.split()[1]) for x in rest.splitlines() if x.startswith("id:")] == ids[2:]


def test_memory_is_that_of_the_largest_optimizer(client: TestClient) -> None:
    """As the optimizers say it; parameters, state and gradient, activations."""

    def memory(*names: str) -> int:
        sweep = {**SWEEP, "optimizers": [{"name": name} for name in names]}
        response = client.post("/v1/jobs?validate_only=true", json=sweep)
        return int(response.json()["memory_bytes"])

    parameters = 64 * 16 + 16 + 16 * 10 + 10
    assert memory("adam") - memory("sgd") == 4 * parameters * 6
    assert memory("sgd") > 200 * 2**20, "the process itself"
    assert memory("sgd", "kfac", "adam") == memory("kfac") > memory("adam")


def test_a_surrogate_of_a_formula_is_trained_in_float64(
    client: TestClient, database: Database
) -> None:
    spec = {
        **SPEC,
        "dataset": {"name": "function", "params": {"expressions": ["sin(pi*x1)*x2"]}},
        "optimizer": {"name": "gauss_newton"},
        "dtype": "float64",
        "target": {"metric": "test_relative_l2", "value": 1e-5},
    }
    assert client.post("/v1/jobs", json=spec).status_code == 201
    (run,) = rows(database, Run)
    assert run.config["dtype"] == "float64"
    usual = client.post("/v1/jobs", json=SPEC).json()
    assert "dtype" not in usual["spec"], "workers of an earlier version know none"
    assert client.get("/v1/runs", params={"filter": "dtype = float64"}).json()["data"] != []
    wrong = {**spec, "dataset": {"name": "function", "params": {"expressions": ["sin(x9)"]}}}
    problem = client.post("/v1/jobs", json=wrong)
    assert problem.status_code == 422
    (error,) = problem.json()["errors"]
    assert error["pointer"] == "/dataset/params"
    assert "'x9' at character 5" in error["detail"]
    assert client.post("/v1/jobs", json={**spec, "dtype": "float16"}).status_code == 422
