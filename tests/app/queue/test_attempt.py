"""Attempts with real trainers: killed, paused, cancelled, diverged, cut off."""

import hashlib
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Session

from mlhf_service.database import Database
from mlhf_service.jobs import service
from mlhf_service.queue.sweeper import expire_leases, void_leases
from mlhf_service.runs.models import Artifact
from tests.app.queue.worker import Service, kill, trainers
from tests.app.stored_points import stored_points
from tests.waiting import until

pytestmark = [
    pytest.mark.slow,  # each test starts a trainer or two
    pytest.mark.parametrize("database_url", ["sqlite"], indirect=True),
]

# Long enough to be killed in the middle, on a network that drops out and normalises.
MODEL = {"name": "mlp", "params": {"hidden": [48, 32], "batch_norm": True, "dropout": 0.1}}
# One for each way to keep state; in one process each optimizer goes on as if undisturbed
# (tests/engine/training/test_train.py).
STEPS = {
    "adam": 1000,
    "kfac": 400,
    "l2l": 600,
    "mlhf": 150,
    "mlhf paper": 150,
    "soap": 500,
}


@pytest.mark.long
@pytest.mark.parametrize("name", STEPS)
def test_a_run_killed_midway_ends_as_if_it_had_not_been(
    worker: Service, submit: Any, name: str, tmp_path: Path
) -> None:
    steps = STEPS[name]
    optimizer, _, variant = name.partition(" ")
    submit(
        model=MODEL,
        optimizer={"name": optimizer, "params": {"variant": variant} if variant else {}},
        budget={"steps": steps},
        evaluation={"every_epochs": 7},
        seed=5,
    )
    killer = worker.when_checkpointed(kill)
    run_id = worker.work().claim.run_id
    killer.join()
    run = worker.run(run_id)
    assert (run.status, run.failures) == ("queued", 1), "it was not killed before its end"

    second = worker.work()
    assert second.claim.checkpoint is not None
    step = second.claim.checkpoint.step
    assert 0 < step < steps
    assert f"attempt 2 trains from step {step}" in worker.log(run_id), "it began anew"
    run = worker.run(run_id)
    assert (run.status, run.attempt) == ("succeeded", 2)

    undisturbed, weights = engine_alone(run.config, tmp_path / "alone")
    assert worker.weights(run_id) == weights
    assert sorted(worker.curve(run_id)) == list(range(1, steps + 1))
    for metric, values in undisturbed.items():
        assert worker.curve(run_id, metric) == values, metric
    points = [p for p in stored_points(worker.database) if p.metric == "batch_loss"]
    walls = [p.wall_seconds for p in sorted(points, key=lambda p: p.step)]
    assert walls == sorted(walls), "the wall clock went back"


def engine_alone(config: dict[str, Any], folder: Path) -> tuple[dict[str, dict[int, Any]], str]:
    """The same run in this process, undisturbed: its curves, and its weights' SHA-256."""
    from mlhf import train

    curves: dict[str, dict[int, Any]] = {}

    def keep(event: dict[str, Any]) -> None:
        for point in event.get("points", ()):
            for metric, value in point["values"].items():
                curves.setdefault(metric, {})[point["step"]] = value

    params = config["optimizer"]["params"]
    if "meta_checkpoint" in params:  # the service's id of what ships
        params["meta_checkpoint"] = "default"
    train({**config, "threads": 1}, on_event=keep, run_dir=folder)
    file = folder / "artifacts" / "model.safetensors"
    return curves, hashlib.sha256(file.read_bytes()).hexdigest()


LONG = {"budget": {"epochs": 5000}, "evaluation": {"every_epochs": 1000}}


def test_pause_writes_a_checkpoint_and_resume_goes_on_from_it(
    worker: Service, submit: Any, database: Database
) -> None:
    job_id = submit(**LONG)

    def pause(pid: int) -> None:
        with database.write() as session:
            service.pause(session, job_id)

    thread = worker.when_checkpointed(pause)
    worker.work()
    thread.join()
    run = worker.run()
    assert (run.status, run.failures) == ("paused", 0)
    steps = sorted(worker.curve(run.id))
    checkpoint = max(a.step for a in worker.all(Artifact) if a.kind == "checkpoint")
    assert steps == list(range(1, checkpoint + 1))

    with database.write() as session:
        service.resume(session, job_id)
    thread = worker.when_checkpointed(kill)
    assert worker.work().claim.checkpoint.step == checkpoint  # type: ignore[union-attr]
    thread.join()


def test_cancel_stops_the_trainer(worker: Service, submit: Any, database: Database) -> None:
    job_id = submit(**LONG)

    def cancel(pid: int) -> None:
        with database.write() as session:
            service.cancel(session, job_id)

    thread = worker.when_checkpointed(cancel)
    worker.work()
    thread.join()
    run = worker.run()
    assert run.status == "cancelled"
    assert worker.curve(run.id)


def test_a_trainer_that_does_not_stop_is_killed_after_the_grace(
    worker: Service, submit: Any, database: Database
) -> None:
    worker.settings = worker.settings.model_copy(update={"grace_seconds": 0.5})
    job_id = submit(**LONG)

    def cancel(pid: int) -> None:
        with database.write() as session:
            service.cancel(session, job_id)

    thread = worker.when_checkpointed(cancel, go_on=False)
    worker.work()
    thread.join()
    assert worker.run().status == "cancelled"


def test_a_worker_that_stops_queues_its_run_again(worker: Service, submit: Any) -> None:
    submit(**LONG)

    def stop(pid: int) -> None:
        worker.stopping = True

    thread = worker.when_checkpointed(stop)
    worker.work()
    thread.join()
    run = worker.run()
    assert (run.status, run.failures, run.lease_owner) == ("queued", 0, None)


def test_divergence_is_told_clearly_and_its_curve_kept(worker: Service, submit: Any) -> None:
    submit(optimizer={"name": "sgd", "params": {"lr": 1e6}}, budget={"epochs": 20})
    worker.work()
    run = worker.run()
    assert run.status == "failed"
    assert run.error["type"] == "/problems/diverged"  # type: ignore[index]
    curves = [worker.curve(run.id, metric) for metric in ("batch_loss", "train_loss")]
    last = [curve[max(curve)] for curve in curves]
    assert set(last) & {"NaN", "Infinity"}, "of a step that was refused, or of an evaluation"
    # Job, run and error agree on where.
    assert run.progress["step"] == run.totals["steps"]  # type: ignore[index]
    assert f"at step {run.totals['steps']}:" in run.error["detail"]  # type: ignore[index]
    names = {a.name for a in worker.all(Artifact)}
    assert "config.json" in names


def test_a_stale_trainer_is_ended_and_writes_nothing(
    worker: Service, submit: Any, database: Database
) -> None:
    submit(**LONG)

    def steal(pid: int) -> None:
        # Its worker is alive, and may renew the lease between the two.
        until(lambda: void_leases(database) and expire_leases(database, 5), "no lease ran out")

    thread = worker.when_checkpointed(steal)
    worker.work()
    thread.join()
    assert worker.run().status == "queued"
    last = max(worker.curve(worker.run().id))
    assert trainers() == [], "it may tell more"
    assert max(worker.curve(worker.run().id)) == last


@pytest.mark.parametrize("committed", [False, True], ids=["away", "away once it has committed"])
def test_an_outage_of_the_database_loses_no_point(
    worker: Service, submit: Any, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    submit(budget={"steps": 3000}, evaluation={"every_epochs": 20})
    real = Database.write
    outage = {"from": None, "failed": 0}

    @contextmanager
    def write(self: Database) -> Iterator[Session]:
        began = outage["from"] or time.monotonic()
        outage["from"] = began
        away = 0.8 < time.monotonic() - began < 4.0  # the trainer ends in the middle of it
        if away and not committed:
            outage["failed"] += 1  # type: ignore[operator]
            raise OperationalError("select", {}, Exception("away"))
        with real(self) as session:
            yield session
        if away:
            outage["failed"] += 1  # type: ignore[operator]
            raise OperationalError("commit", {}, Exception("away"))

    monkeypatch.setattr(Database, "write", write)
    worker.work()
    assert outage["failed"], "there was no outage"
    run = worker.run()
    assert run.status == "succeeded"
    assert sorted(worker.curve(run.id)) == list(range(1, 3001))


def test_data_that_is_gone_fails_the_run_in_words(
    worker: Service, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlhf.core.errors import SpecError

    submit()

    def gone(*_: Any) -> None:
        raise SpecError("/name", "This data set was deleted.")

    monkeypatch.setattr("mlhf_service.jobs.kinds.inputs.resolve_dataset", gone)
    worker.work()
    run = worker.run()
    assert run.status == "failed"
    assert run.error["detail"] == "This data set was deleted."  # type: ignore[index]


def test_the_trainer_knows_no_secrets(worker: Service, submit: Any) -> None:
    submit(**LONG)
    seen: list[str] = []
    os.environ["MLHF_DATABASE_URL"] = "postgresql://user:secret@host/db"
    try:

        def look(pid: int) -> None:
            with open(f"/proc/{pid}/environ") as file:
                seen.append(file.read())
            kill(pid)

        thread = worker.when_checkpointed(look)
        worker.work()
        thread.join()
    finally:
        del os.environ["MLHF_DATABASE_URL"]
    assert seen
    assert "MLHF_" not in seen[0]
    assert "secret" not in seen[0]
