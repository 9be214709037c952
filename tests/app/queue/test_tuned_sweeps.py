"""Sweeps that tune first: one job tries settings, and trains the best on seeds of their own."""

import math
from typing import Any

import pytest
from fastapi.testclient import TestClient

from mlhf_service.comparisons.tuning import tuning_score
from mlhf_service.context import Context
from mlhf_service.database import Database
from mlhf_service.jobs import repository, service
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.state import settle
from mlhf_service.queue import catch_up
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.finish import Outcome, end_attempt
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import HELD_UNTIL
from tests.app.conftest import Rows
from tests.app.queue.worker import Service

SWEEP: dict[str, Any] = {
    "kind": "sweep",
    "optimizers": [
        {"name": "adamw", "settings": [{"lr": 0.1}, {"lr": 0.01}, {"lr": 0.02, "beta1": 0.8}]},
        {"name": "momentum"},
        {"name": "sgd", "grid": {"lr": [0.1, 1.0]}},
    ],
    "seeds": [0, 1],
    "tune": {"seeds": [1000]},
}
# One optimizer of two settings, one seed: runs 0 and 1 tune, run 2 waits for them.
ONE = SWEEP | {"optimizers": [{"name": "sgd", "grid": {"lr": [0.1, 1.0]}}], "seeds": [0]}


class Worker:
    """Claims runs, and ends each with the curve that it is given."""

    def __init__(self, database: Database, rows: Rows) -> None:
        self.database, self.rows = database, rows

    def train(self, *losses: float, diverged: bool = False) -> Run:
        """Train the next run; returns it as it was claimed."""
        claim = claim_next(self.database, "cpu", "me", 30.0)
        assert claim is not None, "no run may start"
        self.rows.points(claim.run_id, "train_loss", dict(enumerate(losses)))
        status = "diverged" if diverged else "succeeded"
        event = {"status": status, "reason": "", "totals": {}, "summary": {}}
        with self.database.write() as session:
            job = repository.lock(session, claim.job_id)
            run = session.get_one(Run, claim.run_id)
            assert job is not None
            end_attempt(session, job, run, Outcome("finished", event), 3)
            settle(session, job)
        return run

    @property
    def idle(self) -> bool:
        return claim_next(self.database, "cpu", "me", 30.0) is None

    def runs(self, job_id: str) -> list[Run]:
        with self.database.read() as session:
            return repository.runs_of(session, job_id)


@pytest.fixture
def worker_of_curves(database: Database, rows: Rows) -> Worker:
    return Worker(database, rows)


def test_the_best_setting_of_each_optimizer_is_trained_on_the_seeds(
    worker_of_curves: Worker, submit: Any, client: TestClient
) -> None:
    worker = worker_of_curves
    job_id = submit(**SWEEP)
    found = worker.runs(job_id)
    assert len(found) == 5 + 2 * 3
    assert [r.available_at == HELD_UNTIL for r in found[5:]] == [True, False, True] * 2
    worker.train(1.0, 0.5, 0.3)
    worker.train(1.0, 0.2, 0.1)
    assert worker.runs(job_id)[5].available_at == HELD_UNTIL
    shown = client.get("/v1/runs", params={"job_id": job_id, "sort": "created_at"}).json()["data"]
    assert [r["held"] for r in shown] == [False] * 5 + [True, False, True] * 2
    page = client.get(f"/jobs/{job_id}").text
    assert page.count("until its setting is chosen") == 4
    assert page.count("tries a setting") == 5
    assert "until its setting is chosen" in client.get(f"/runs/{shown[5]['id']}").text
    third = worker.train(1.0, 0.9, 0.4)
    assert third.config["optimizer"]["params"]["beta1"] == 0.8
    # AdamW's setting is known, SGD's is not yet.
    assert [r.available_at == HELD_UNTIL for r in worker.runs(job_id)[5:]] == [
        False,
        False,
        True,
    ] * 2
    worker.train(1.0, math.nan, diverged=True)
    worker.train(1.0, 5.0, 4.0)
    trained = [worker.train(1.0, 0.1) for _ in range(6)]
    assert worker.idle
    assert [(r.optimizer, r.seed) for r in trained] == [
        (name, seed) for seed in (0, 1) for name in ("adamw", "momentum", "sgd")
    ]
    assert {r.config["optimizer"]["params"]["lr"] for r in trained if r.optimizer == "adamw"} == {
        0.01
    }
    assert {r.config["optimizer"]["params"]["lr"] for r in trained if r.optimizer == "sgd"} == {1.0}
    assert all(r.config["seed"] == r.seed for r in trained)
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "succeeded"  # one that diverged is a result of a sweep
    comparison = client.get("/v1/comparisons", params={"job": job_id}).json()
    assert [(g["n"], g["repeats"]) for g in comparison["groups"]] == [(2, 0)] * 3
    assert len(comparison["runs"]) == 6


def test_where_all_settings_diverge_the_first_is_trained(
    worker_of_curves: Worker, submit: Any
) -> None:
    job_id = submit(**ONE)
    for _ in range(2):
        worker_of_curves.train(1.0, math.inf, diverged=True)
    assert worker_of_curves.train(1.0, 0.5).config["optimizer"]["params"]["lr"] == 0.1
    assert [r.status for r in worker_of_curves.runs(job_id)] == ["failed", "failed", "succeeded"]


def test_several_seeds_choose_together(worker_of_curves: Worker, submit: Any) -> None:
    submit(**ONE | {"tune": {"seeds": [7, 8]}})
    for losses in ((1.0, 0.1), (1.0, 0.2), (1.0, 0.9), (1.0, 0.2)):  # by seed, then by rate
        worker_of_curves.train(*losses)
    assert worker_of_curves.train(1.0, 0.5).config["optimizer"]["params"]["lr"] == 1.0


def test_what_is_held_back_is_paused_resumed_and_cancelled_like_any(
    worker_of_curves: Worker, submit: Any, database: Database
) -> None:
    worker = worker_of_curves
    job_id = submit(**ONE)
    worker.train(1.0, 0.5)
    with database.write() as session:
        assert service.pause(session, job_id).status == "paused"
    assert worker.idle
    with database.write() as session:
        service.resume(session, job_id)
    worker.train(1.0, 0.4)
    with database.write() as session:
        assert service.cancel(session, job_id).status == "cancelled"
    assert worker.runs(job_id)[2].status == "cancelled"


def test_a_retry_tunes_again_what_it_depends_on(
    worker_of_curves: Worker, submit: Any, database: Database, settings: Any, storage: Any
) -> None:
    worker = worker_of_curves
    job_id = submit(**SWEEP | {"seeds": [0]})
    for losses in ((1.0, 0.3), (1.0, 0.1), (1.0, 0.2), (1.0, 0.2), (1.0, 0.3)):
        worker.train(*losses)
    worker.train(1.0, math.inf, diverged=True)  # AdamW on the seed
    worker.train(1.0, 0.1)
    worker.train(1.0, 0.1)
    with database.write() as session:
        again = service.retry(Context(session, settings, storage), job_id)
        assert [run.position for run in again.runs] == [0, 1, 2, 5]
    for losses in ((1.0, 0.1), (1.0, 0.3), (1.0, 0.2)):
        worker.train(*losses)
    assert worker.train(1.0, 0.1).config["optimizer"]["params"]["lr"] == 0.1


def test_what_waits_for_deleted_runs_is_let_go(
    worker_of_curves: Worker, submit: Any, client: TestClient
) -> None:
    worker = worker_of_curves
    job_id = submit(**ONE)
    worker.train(1.0, 0.5)
    last = worker.runs(job_id)[1].id
    assert client.delete(f"/v1/runs/{last}", params={"cancel": True}).status_code == 204
    assert worker.train(1.0, 0.5).config["optimizer"]["params"]["lr"] == 0.1
    assert client.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"


def test_without_any_run_that_tunes_the_first_setting_is_trained(
    worker_of_curves: Worker, submit: Any, client: TestClient
) -> None:
    worker = worker_of_curves
    job_id = submit(**ONE)
    for run in worker.runs(job_id)[:2]:
        assert client.delete(f"/v1/runs/{run.id}", params={"cancel": True}).status_code == 204
    assert worker.train(1.0, 0.5).config["optimizer"]["params"]["lr"] == 0.1
    lines = client.get(f"/v1/jobs/{job_id}/logs").json()["data"]
    assert any("no run that tunes sgd is left" in line["message"] for line in lines)


def test_what_an_older_worker_leaves_held_back_is_let_go(
    worker_of_curves: Worker, submit: Any, database: Database
) -> None:
    worker = worker_of_curves
    job_id = submit(**ONE)
    worker.train(1.0, 0.5)
    assert catch_up.release_held(database) == 0  # one that tunes may start
    with database.write() as session:  # as a worker that knows of no run that is held back
        job = session.get_one(Job, job_id)
        repository.runs_of(session, job_id)[1].status = "failed"
        job.ready_at = HELD_UNTIL
    assert worker.idle
    assert catch_up.release_held(database) == 1
    assert worker.train(1.0, 0.5).config["optimizer"]["params"]["lr"] == 0.1
    assert catch_up.release_held(database) == 0


def test_seeds_and_choices_that_do_not_fit_are_refused(client: TestClient) -> None:
    base = {
        "model": {"name": "mlp"},
        "dataset": {"name": "digits"},
        "budget": {"epochs": 1},
        **SWEEP,
    }
    answer = client.post("/v1/jobs", json=base | {"tune": {"seeds": [1]}})
    assert answer.status_code == 422
    assert "share 1" in answer.text
    both = [{"name": "sgd", "grid": {"lr": [1.0]}, "settings": [{"lr": 1.0}]}]
    assert "not both" in client.post("/v1/jobs", json=base | {"optimizers": both}).text
    wrong = [{"name": "sgd", "settings": [{"lr": 0.1}, {"lr": -1}]}]
    answer = client.post("/v1/jobs", json=base | {"optimizers": wrong})
    assert answer.json()["errors"][0]["pointer"] == "/optimizers/0/settings/1/lr"
    estimate = client.post("/v1/jobs?validate_only=true", json=base).json()
    assert estimate["runs"] == 11


def test_the_score_is_that_of_the_final_and_the_integrated_log_loss() -> None:
    expected = (math.log(0.1) + (math.log(0.5) + math.log(0.1)) / 2) / 2
    assert tuning_score([9.0, 0.5, 0.1]) == pytest.approx(expected)
    assert tuning_score([9.0, 0.0, 1e-9]) == pytest.approx(math.log(1e-6))
    assert tuning_score([9.0, math.inf, 0.1]) == tuning_score([9.0]) == math.inf


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_one_posted_job_compares_tuned_optimizers(worker: Service, client: TestClient) -> None:
    body = {
        "kind": "sweep",
        "model": {"name": "mlp", "params": {"hidden": [16]}},
        "dataset": {"name": "digits", "params": {"train_samples": 256}},
        "budget": {"epochs": 2},
        "evaluation": {"samples": "all"},
        "optimizers": [
            {"name": "adamw", "settings": [{"lr": 1e-6}, {"lr": 0.01}]},
            {"name": "mlhf"},
        ],
        "seeds": [0],
        "tune": {"seeds": [1000]},
    }
    created = client.post("/v1/jobs", json=body)
    assert created.status_code == 201, created.text
    job_id = created.json()["id"]
    for _ in range(4):
        worker.work()
    job = client.get(f"/v1/jobs/{job_id}").json()
    assert job["status"] == "succeeded"
    groups = client.get("/v1/comparisons", params={"job": job_id}).json()["groups"]
    assert {(group["n"], group["label"].split()[0]) for group in groups} == {
        (1, "mlhf"),
        (1, "adamw"),
    }
    run = next(r for r in worker.all(Run) if r.seed == 0 and r.optimizer == "adamw")
    assert run.config["optimizer"]["params"]["lr"] == 0.01
    assert any("best of 2 settings" in line for r in worker.all(Run) for line in worker.log(r.id))
    with worker.database.read() as session:
        assert session.get_one(Job, job_id).kind == "sweep"
