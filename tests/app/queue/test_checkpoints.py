"""A run resumes from its newest checkpoint that is whole, and says so where one is not."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlhf_service.database import Database
from mlhf_service.queue.checkpoints import with_whole_checkpoint
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.leases import FencedError
from mlhf_service.queue.sweeper import expire_leases, void_leases
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.storage.folder import FolderStorage
from tests.app.conftest import Rows
from tests.app.queue.test_attempt import engine_alone
from tests.app.queue.worker import Service
from tests.waiting import until

OLDER, NEWER = "checkpoint-000000003.safetensors", "checkpoint-000000007.safetensors"


@pytest.fixture
def run_id(submit: Any, rows: Rows, database: Database) -> str:
    """A waiting run after one attempt, with checkpoints of steps 3 and 7, and 9 steps of curve."""
    submit()
    with database.write() as session:
        (run,) = session.query(Run)
        run.attempt = 1
    for step, name in ((3, OLDER), (7, NEWER)):
        rows.artifact(run.id, name, b"x" * 100, kind="checkpoint", step=step)
    rows.points(run.id, "batch_loss", dict.fromkeys(range(1, 10), 1.0))
    return str(run.id)


def _truncate(path: Path) -> None:
    os.truncate(path, 50)


def _flip(path: Path) -> None:
    path.write_bytes(b"x" * 60 + b"y" * 40)


DAMAGES: dict[str, tuple[Callable[[Path], None], str]] = {
    "truncated": (_truncate, "is damaged (50 bytes of 100)"),
    "emptied": (lambda path: os.truncate(path, 0), "is damaged (0 bytes of 100)"),
    "flipped": (_flip, "is damaged (other content)"),
    "deleted": (Path.unlink, "is gone"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("damaged", [(NEWER,), (NEWER, OLDER), (OLDER,)])
def test_the_newest_whole_one_is_taken(
    worker: Service,
    database: Database,
    storage: FolderStorage,
    run_id: str,
    damage: str,
    damaged: tuple[str, ...],
) -> None:
    harm, told = DAMAGES[damage]
    for name in damaged:
        harm(storage.path(f"runs/{run_id}/{name}"))
    claim = claim_next(database, "cpu", "test", 30.0)
    assert claim is not None
    claim = with_whole_checkpoint(database, storage, claim, 30.0)
    step = claim.checkpoint.step if claim.checkpoint else 0
    assert step == {1: 3 if NEWER in damaged else 7, 2: 0}[len(damaged)]
    assert sorted(worker.curve(run_id)) == list(range(1, step + 1))
    said = [message for message in worker.log(run_id) if told in message]
    assert len(said) == (len(damaged) if NEWER in damaged else 0)
    if step == 0:
        assert said[-1].endswith("The run goes on from the beginning.")


def test_a_store_that_cannot_be_read_says_nothing_about_checkpoints(
    worker: Service, database: Database, storage: FolderStorage, run_id: str, monkeypatch: Any
) -> None:
    claim = claim_next(database, "cpu", "test", 30.0)
    assert claim is not None

    def unreadable(_: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("mlhf_service.queue.checkpoints.size_and_sha256", unreadable)
    with pytest.raises(OSError, match="Input/output"):
        with_whole_checkpoint(database, storage, claim, 30.0)
    assert len(worker.all(Artifact)) == 2


def test_a_claim_that_is_lost_meanwhile_forgets_nothing(
    worker: Service, database: Database, storage: FolderStorage, run_id: str
) -> None:
    storage.delete(f"runs/{run_id}/{NEWER}")
    claim = claim_next(database, "cpu", "test", 30.0)
    assert claim is not None
    void_leases(database)
    assert expire_leases(database, 5) == 1
    with pytest.raises(FencedError):
        with_whole_checkpoint(database, storage, claim, 30.0)
    assert len(worker.all(Artifact)) == 2


@pytest.mark.long
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_a_damaged_checkpoint_changes_nothing_but_where_the_run_goes_on(
    worker: Service, submit: Any, tmp_path: Path
) -> None:
    submit(budget={"steps": 600}, evaluation={"every_epochs": 9}, optimizer={"name": "hf_adam"})

    def stop(_: int) -> None:
        worker.stopping = True

    thread = worker.when_checkpointed(stop)
    run_id = worker.work().claim.run_id
    thread.join()
    worker.stopping = False
    checkpoints = sorted(
        (a for a in worker.all(Artifact) if a.kind == "checkpoint"), key=lambda a: a.step
    )
    assert len(checkpoints) == 2, "one on the way, and one at the stop"
    _flip_middle(worker.storage.path(checkpoints[-1].storage_key))

    worker.work()
    run = worker.run(run_id)
    assert run.status == "succeeded", run.error
    assert f"attempt 2 trains from step {checkpoints[0].step}" in worker.log(run_id)
    assert any("damaged (other content)" in message for message in worker.log(run_id))
    _, weights = engine_alone(run.config, tmp_path / "alone")
    assert worker.weights(run_id) == weights
    assert sorted(worker.curve(run_id)) == list(range(1, 601))


def _flip_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(255 - byte for byte in content[middle : middle + 400])
    path.write_bytes(bytes(content))


@pytest.mark.slow
@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_one_that_the_engine_cannot_load_is_fallen_back_from(
    worker: Service, submit: Any, rows: Rows
) -> None:
    submit()
    run_id = worker.run().id
    rows.artifact(run_id, NEWER, b"of another version", kind="checkpoint", step=7)
    with worker.database.write() as session:
        session.get_one(Run, run_id).attempt = 1  # a first attempt has no checkpoint to look for
    worker.work()
    run = worker.run(run_id)
    assert (run.status, run.failures, run.worker_faults) == ("queued", 0, 0), run.error
    assert worker.log(run_id)[-1].endswith("The run goes on from the beginning.")
    assert "cannot be read" in worker.log(run_id)[-1]
    until(lambda: worker.work().claim.checkpoint is None, "not from the beginning")
    assert worker.run(run_id).status == "succeeded"
