"""Attempts that cannot start, or whose trainer ends with an error: what the user is told."""

import errno
import os
import shutil
from typing import Any, ClassVar

import pytest
from fastapi.testclient import TestClient

from mlhf.core.events import Event, EventFile, event
from mlhf.core.failures import explain
from mlhf.core.optional import MissingPackageError
from mlhf_service.database import Database
from mlhf_service.jobs.models import Job
from mlhf_service.queue import attempt, finish
from mlhf_service.queue.trainer_process import TrainerProcess
from mlhf_service.runs.models import Run
from tests.app.queue.worker import Service

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


class Scripted(TrainerProcess):
    """A trainer without a process: it tells ``events`` and ends with ``code``."""

    events: ClassVar[list[Event]] = []
    code = 1

    def start(self, *_: Any) -> None:
        self.folder.mkdir(parents=True)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.write_text("Traceback …")
        with EventFile(self.folder / "events.jsonl") as tell:
            for each in self.events:
                tell(each)

    def exit_code(self) -> int:
        return self.code


def _ended(worker: Service, monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> Any:
    monkeypatch.setattr(attempt, "TrainerProcess", type("Case", (Scripted,), attributes))
    return worker.run(worker.work().claim.run_id)


@pytest.mark.parametrize(
    ("error", "status", "slug"),
    [
        (ValueError("seven is odd"), 500, "internal"),
        (MemoryError(), 422, "memory"),
        (MissingPackageError("sklearn", "data"), 500, "package"),
    ],
)
def test_an_error_is_a_problem_with_its_cause(
    worker: Service, submit: Any, monkeypatch: Any, error: Exception, status: int, slug: str
) -> None:
    submit()
    told = explain(error)
    failed = event("failed", error=told.to_dict())
    run = _ended(worker, monkeypatch, events=[failed])
    assert (run.status, run.error["status"]) == ("failed", status)
    assert run.error["type"] == f"/problems/{slug}"
    assert run.error["title"] == told.title
    log = f"logs/trainers/{run.id}-1.log"
    assert run.error["detail"].startswith(told.detail)
    assert (log in run.error["detail"]) == (status == 500)
    assert (worker.settings.root / log).read_text() == "Traceback …"


@pytest.mark.parametrize(
    ("code", "reason"),
    [(-9, "smaller network or batch_size"), (-11, "SIGSEGV")],
)
def test_an_end_without_a_word_is_explained(
    worker: Service, submit: Any, monkeypatch: Any, code: int, reason: str
) -> None:
    submit()
    worker.settings = worker.settings.model_copy(update={"max_attempts": 2})
    run = _ended(worker, monkeypatch, code=code)
    assert (run.status, run.failures) == ("queued", 1)
    assert reason in worker.log(run.id)[-1]
    worker.work()
    run = worker.run(run.id)
    assert run.error["type"] == "/problems/lost"  # type: ignore[index]
    assert reason in run.error["detail"]  # type: ignore[index]


@pytest.mark.parametrize("place", ["start", "read"])
def test_a_worker_without_room_gives_the_run_back_at_once(
    worker: Service, submit: Any, monkeypatch: Any, place: str
) -> None:
    submit()

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "/srv/spool/run.json")

    run = _ended(worker, monkeypatch, **{place: full})
    assert (run.status, run.failures, run.worker_faults) == ("queued", 0, 1)
    assert "Make room in the worker's data folder" in worker.log(run.id)[-1]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError("CUDA error: unspecified launch failure"), "needs a look"),
        (ModuleNotFoundError("No module named 'torch'", name="torch"), "torch cannot be imported"),
        (OSError(errno.EIO, os.strerror(errno.EIO)), "Input/output error"),
    ],
)
def test_a_fault_of_the_worker_does_not_count_against_the_run(
    worker: Service, submit: Any, monkeypatch: Any, error: Exception, reason: str
) -> None:
    submit()
    failed = event("failed", error=explain(error).to_dict())
    run = _ended(worker, monkeypatch, events=[failed])
    assert (run.status, run.failures, run.worker_faults) == ("queued", 0, 1)
    assert reason in worker.log(run.id)[-1]


def test_workers_that_always_fail_a_run_end_it_with_the_reason(
    worker: Service, submit: Any, monkeypatch: Any, database: Database
) -> None:
    submit()
    failed = event("failed", error=explain(RuntimeError("CUDA error: ECC")).to_dict())
    for attempt_number in range(1, finish.MAX_WORKER_FAULTS + 1):
        run = _ended(worker, monkeypatch, events=[failed])
        assert (run.attempt, run.failures) == (attempt_number, 0)
        with database.write() as session:
            session.get_one(Run, run.id).available_at = 0.0
            session.get_one(Job, run.job_id).ready_at = 0.0
    assert run.status == "failed"
    assert run.error["type"] == "/problems/lost"
    assert "CUDA error: ECC" in run.error["detail"]
    assert "Mend the workers" in run.error["detail"]


def test_an_unexpected_error_ends_the_attempt_at_once_and_counts(
    worker: Service, submit: Any, monkeypatch: Any
) -> None:
    submit()

    def wrong(*_: Any) -> None:
        raise LookupError("no such thing")

    run = _ended(worker, monkeypatch, read=wrong)
    assert (run.status, run.failures, run.worker_faults) == ("queued", 1, 0)
    assert "LookupError: no such thing" in worker.log(run.id)[-1]


def test_a_trainer_that_ends_before_its_first_word_is_the_installation(
    worker: Service, submit: Any, monkeypatch: Any
) -> None:
    submit()
    run = _ended(worker, monkeypatch, code=1)
    assert (run.status, run.failures, run.worker_faults) == ("queued", 0, 1)


def test_a_run_without_its_model_has_not_succeeded(
    worker: Service, submit: Any, monkeypatch: Any
) -> None:
    submit()
    model = event(
        "artifact", name="model.safetensors", path="artifacts/m", content_type="x", sha256=""
    )
    end = event("finished", status="succeeded", reason=None, totals={}, summary={}, target=None)
    run = _ended(worker, monkeypatch, events=[model, end], code=0)
    assert (run.status, run.worker_faults) == ("queued", 1)


def test_a_spool_that_is_deleted_is_noticed(worker: Service, submit: Any, monkeypatch: Any) -> None:
    submit()

    def gone(trainer: Scripted) -> None:
        shutil.rmtree(trainer.folder)

    run = _ended(worker, monkeypatch, exit_code=gone)
    assert (run.status, run.worker_faults) == ("queued", 1)
    assert "no longer there (events.jsonl)" in worker.log(run.id)[-1]


def test_a_data_set_whose_files_are_gone_is_named(worker: Service, client: TestClient) -> None:
    table = "a,b\n" + "".join(f"{i},{i % 2}\n" for i in range(20))
    uploaded = client.post(
        "/v1/datasets",
        data={"name": "mine", "format": "table", "params": '{"target": "b"}'},
        files={"file": ("mine.csv", table)},
    ).json()["id"]
    job = {
        "kind": "train",
        "model": {"name": "mlp"},
        "dataset": {"name": uploaded},
        "optimizer": {"name": "sgd"},
        "budget": {"steps": 1},
        "batch_size": 4,
    }
    assert client.post("/v1/jobs", json=job).status_code == 201
    worker.storage.delete(f"datasets/{uploaded}")
    worker.work()
    error: Any = worker.run().error
    assert uploaded in error["detail"]
    assert "upload it again" in error["detail"]
    assert client.post("/v1/jobs", json=job).json()["errors"][0]["pointer"] == "/dataset/name"


def test_a_package_that_is_missing_is_named(
    worker: Service, submit: Any, client: TestClient, monkeypatch: Any
) -> None:
    submit()

    def bare(*_: Any) -> None:
        raise MissingPackageError("sklearn", "data")

    monkeypatch.setattr("mlhf_service.jobs.kinds.inputs.resolve_dataset", bare)
    worker.work()
    error: Any = worker.run().error
    assert (error["type"], error["status"]) == ("/problems/package", 500)
    assert "sklearn" in error["detail"]

    monkeypatch.setattr("mlhf_service.datasets.resolve._described", bare)
    answer = client.get("/v1/datasets/digits").json()
    assert not answer["available"]
    assert "sklearn" in answer["reason"]


def test_a_run_has_no_more_threads_than_cores(
    worker: Service, submit: Any, monkeypatch: Any
) -> None:
    submit(resources={"threads": 1024})
    given = []

    def start(_: Any, claim: Any, config: dict[str, Any], *rest: Any) -> None:
        given.append(config["threads"])
        raise FileNotFoundError

    monkeypatch.setattr("os.cpu_count", lambda: 3)
    _ended(worker, monkeypatch, start=start)
    assert given == [3]
