"""Claims, leases and fences, on both databases."""

import threading
from typing import Any

import pytest
from sqlalchemy import update

from mlhf.core.metrics import json_number
from mlhf_service.database import Database, db_now
from mlhf_service.jobs import service
from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.jobs.outbox import Outbox
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.ingest import Ingestor, StoredEvent
from mlhf_service.queue.leases import Claim, FencedError, hold
from mlhf_service.queue.sweeper import Sweeper, expire_leases, release, void_leases
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage
from tests.app.stored_points import stored_points

LEASE = 30.0


def claim(database: Database, owner: str = "me") -> Claim:
    found = claim_next(database, "cpu", owner, LEASE)
    assert found is not None
    return found


def all_of(database: Database, table: Any) -> list[Any]:
    with database.read() as session:
        return list(session.query(table))


def point(step: int, **values: Any) -> dict[str, Any]:
    return {
        "step": step,
        "samples": 64 * step,
        "epoch": step / 22,
        "wall_seconds": 0.1 * step,
        "values": values or {"batch_loss": 1.0 / (step + 1)},
    }


def points(*steps: int) -> StoredEvent:
    return StoredEvent({"type": "points", "at": 0.0, "points": [point(step) for step in steps]})


def test_a_claim_starts_a_lease_by_the_databases_clock(database: Database, submit: Any) -> None:
    job_id = submit()
    found = claim(database)
    assert (found.job_id, found.attempt, found.checkpoint) == (job_id, 1, None)
    with database.read() as session:
        run, job = session.get_one(Run, found.run_id), session.get_one(Job, job_id)
        remaining = run.lease_expires_at - session.scalar(db_now().select())  # type: ignore[operator]
    assert (run.status, job.status, run.lease_owner) == ("running", "running", "me")
    assert LEASE - 5 < remaining <= LEASE
    assert claim_next(database, "cpu", "other", LEASE) is None


def test_queues_are_apart(database: Database, submit: Any) -> None:
    submit()
    assert claim_next(database, "gpu", "me", LEASE) is None


def test_the_oldest_waits_least(database: Database, submit: Any) -> None:
    ids = [submit() for _ in range(3)]
    assert [claim(database).job_id for _ in ids] == ids


def test_many_workers_never_take_a_run_twice(database: Database, submit: Any) -> None:
    submit(kind="sweep", optimizers=[{"name": "adam"}, {"name": "sgd"}], seeds=list(range(10)))
    taken: list[str] = []
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            misses = 0
            while misses < 20:  # others may hold the job's lock at a look
                found = claim_next(database, "cpu", f"w{number}", LEASE)
                if found is None:
                    misses += 1
                else:
                    taken.append(found.run_id)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert len(taken) == len(set(taken)) == 20


def test_a_stale_attempt_can_write_nothing(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit()
    stale = claim(database)
    old = Ingestor(database, storage, stale, LEASE)
    old.apply([points(1, 2)])
    void_leases(database)
    assert expire_leases(database, 5) == 1
    for _ in range(2):  # while it waits, and when another has it
        with pytest.raises(FencedError):
            old.apply([points(3)])
        with pytest.raises(FencedError):
            old.apply([])
        again = claim_next(database, "cpu", "me", LEASE) or again  # noqa: F821
    assert again.attempt == 2
    Ingestor(database, storage, again, LEASE).apply([points(1)])
    assert sorted(p.step for p in stored_points(database)) == [1]


def test_the_same_attempt_of_another_owner_is_fenced(database: Database, submit: Any) -> None:
    submit()
    mine = claim(database)
    thief = Claim(**{**mine.__dict__, "owner": "thief"})
    with database.write() as session, pytest.raises(FencedError):
        hold(session, thief, LEASE)


def test_a_heartbeat_keeps_the_lease(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit()
    found = claim(database)
    with database.write() as session:
        session.execute(update(Run).values(lease_expires_at=db_now() + 0.5))
    Ingestor(database, storage, found, LEASE).apply([])
    (run,) = all_of(database, Run)
    with database.read() as session:
        assert run.lease_expires_at - session.scalar(db_now().select()) > LEASE - 5
    assert expire_leases(database, 5) == 0


def test_only_leases_that_ran_out_are_taken_back(database: Database, submit: Any) -> None:
    submit()
    found = claim(database)
    assert expire_leases(database, 5) == 0
    void_leases(database)
    assert expire_leases(database, 5) == 1
    assert expire_leases(database, 5) == 0
    (run,), (job,) = all_of(database, Run), all_of(database, Job)
    assert (run.status, job.status, run.lease_owner, run.failures) == ("queued", "queued", None, 1)
    assert claim(database).run_id == found.run_id


def test_after_the_last_attempt_the_run_fails_with_the_reason(
    database: Database, submit: Any
) -> None:
    submit()
    for attempt in range(1, 4):
        with database.write() as session:  # no waiting for the back-off here
            session.execute(update(Run).values(available_at=0.0))
            session.execute(update(Job).values(ready_at=0.0))
        assert claim(database).attempt == attempt
        void_leases(database)
        expire_leases(database, 3)
    (job,), (run,) = all_of(database, Job), all_of(database, Run)
    assert (job.status, run.status) == ("failed", "failed")
    assert "3 attempts" in job.error["detail"]
    assert claim_next(database, "cpu", "me", LEASE) is None


def test_a_lost_run_waits_longer_each_time(database: Database, submit: Any) -> None:
    submit()
    waits = []
    for _ in range(4):
        with database.write() as session:
            session.execute(update(Run).values(available_at=0.0))
            session.execute(update(Job).values(ready_at=0.0))
        claim(database)
        void_leases(database)
        expire_leases(database, 9)
        with database.read() as session:
            row = session.query(Run).one()
            waits.append(row.available_at - session.scalar(db_now().select()))
    assert [round(max(0.0, wait)) for wait in waits] == [0, 1, 2, 4]


@pytest.mark.parametrize(("desired", "expected"), [("cancel", "cancelled"), ("pause", "paused")])
def test_what_the_user_wanted_of_a_lost_run_comes_true(
    database: Database, submit: Any, desired: str, expected: str
) -> None:
    job_id = submit()
    claim(database)
    with database.write() as session:
        getattr(service, desired)(session, job_id)
    void_leases(database)
    expire_leases(database, 5)
    (job,), (run,) = all_of(database, Job), all_of(database, Run)
    assert (job.status, run.status, job.desired) == (expected, expected, None)


def test_points_told_twice_are_there_once(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit()
    ingestor = Ingestor(database, storage, claim(database), LEASE)
    ingestor.apply([points(1, 2), points(2, 3)])
    ingestor.apply([points(2, 3, 4)])
    assert sorted(p.step for p in stored_points(database)) == [1, 2, 3, 4]


def test_a_resumed_curve_is_cut_back_to_its_checkpoint(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit()
    ingestor = Ingestor(database, storage, claim(database), LEASE)
    stored = storage.put("runs/x/step-2", b"state")
    ingestor.apply(
        [points(0, 1, 2), StoredEvent({"type": "checkpoint", "step": 2}, stored), points(3, 4)]
    )
    void_leases(database)
    expire_leases(database, 5)
    again = claim(database)
    assert again.checkpoint is not None
    assert again.checkpoint.step == 2
    assert sorted(p.step for p in stored_points(database)) == [0, 1, 2]


def test_only_the_last_checkpoints_are_kept(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit()
    ingestor = Ingestor(database, storage, claim(database), LEASE)
    for step in (5, 10, 15, 20):
        stored = storage.put(f"runs/x/step-{step}", b"state")
        ingestor.apply([StoredEvent({"type": "checkpoint", "step": step}, stored)])
    assert sorted(a.step for a in all_of(database, Artifact)) == [15, 20]
    assert sorted(p.name for p in storage.root.rglob("step-*")) == ["step-15", "step-20"]


def test_nothing_is_written_when_a_part_fails(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit()
    ingestor = Ingestor(database, storage, claim(database), LEASE)
    before = len(all_of(database, JobEvent))
    with pytest.raises(KeyError):
        ingestor.apply([points(1), StoredEvent({"type": "log", "level": "info"})], offset=99)
    assert stored_points(database) == []
    assert len(all_of(database, JobEvent)) == before
    assert all_of(database, Run)[0].spool_offset == 0


def test_values_that_are_not_finite_survive(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit()
    ingestor = Ingestor(database, storage, claim(database), LEASE)
    values = {"batch_loss": "NaN", "train_loss": "-Infinity", "test_loss": 0.25}
    ingestor.apply([StoredEvent({"type": "points", "points": [point(7, **values)]})])
    found = {p.metric: json_number(p.value) for p in stored_points(database)}
    assert found == values


def test_event_numbers_have_no_gaps_under_concurrent_writers(
    database: Database, storage: FolderStorage, submit: Any
) -> None:
    submit(kind="sweep", optimizers=[{"name": "adam"}], seeds=[0, 1, 2, 3])
    ingestors = [Ingestor(database, storage, claim(database), LEASE) for _ in range(4)]

    def work(ingestor: Ingestor) -> None:
        for step in range(1, 11):
            ingestor.apply([points(step)])

    threads = [threading.Thread(target=work, args=(i,)) for i in ingestors]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    numbers = sorted(e.seq for e in all_of(database, JobEvent))
    assert numbers == list(range(1, len(numbers) + 1))
    assert len(stored_points(database)) == 40


def test_the_sweeper_gives_a_full_lease_after_an_outage(
    database: Database, settings: Settings, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    monkeypatch.setattr(
        "mlhf_service.queue.doorbell.ring", lambda queue, expires=0: rung.append(queue)
    )
    submit()
    claim(database)
    void_leases(database)
    sweeper = Sweeper(settings, database, expire_at_once=True)
    clock = [1000.0]
    monkeypatch.setattr("mlhf_service.queue.sweeper.time.monotonic", lambda: clock[0])
    sweeper._last_pass = clock[0] - settings.lease_seconds  # the database was away
    sweeper.sweep()
    assert all_of(database, Run)[0].status == "running"
    for _ in range(10):
        clock[0] += settings.lease_seconds / 9
        sweeper.sweep()
    assert all_of(database, Run)[0].status == "queued"


def test_the_sweeper_rings_for_the_outbox_and_again_for_what_waits(
    database: Database, settings: Settings, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rung: list[str] = []
    monkeypatch.setattr(
        "mlhf_service.queue.doorbell.ring", lambda queue, expires=0: rung.append(queue)
    )
    submit()
    sweeper = Sweeper(settings, database)
    sweeper.sweep()
    assert rung == ["cpu", "cpu"]  # once for the outbox, once since nobody came yet
    assert all_of(database, Outbox) == []
    sweeper.sweep()
    assert len(rung) == 2  # not at every pass
    claim(database)
    sweeper._last_ring.clear()
    sweeper.sweep()
    assert len(rung) == 2  # nothing waits


def test_a_broker_that_is_away_keeps_the_outbox(
    database: Database, settings: Settings, submit: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(queue: str, expires: float = 0) -> None:
        raise ConnectionError("no broker")

    monkeypatch.setattr("mlhf_service.queue.doorbell.ring", fail)
    submit()
    with pytest.raises(ConnectionError):
        Sweeper(settings, database).sweep()
    assert len(all_of(database, Outbox)) == 1


def test_a_job_that_is_in_line_with_nothing_that_waits_is_passed_over(
    database: Database, submit: Any
) -> None:
    """Workers of an earlier version take its run, and know nothing of the line."""
    submit()
    other = submit()
    first = claim(database)
    with database.write() as session:
        session.execute(update(Job).where(Job.id == first.job_id).values(ready_at=0.0))
    assert claim(database, "other").job_id == other
    assert claim_next(database, "cpu", "late", LEASE) is None
    assert {run.attempt for run in all_of(database, Run)} == {1}


def test_what_a_dead_process_held_is_taken_back_before_its_lease_runs_out(
    database: Database, submit: Any
) -> None:
    """Its successor in the same slot knows that it is dead; others hold what they hold."""
    for _ in range(3):
        submit()
    dead = claim(database, "host:1:slot_a:dead")
    held = {claim(database, owner).run_id for owner in ("host:2:slot_a:new", "host:3:slot_b:x")}
    assert release(database, "slot_a", "new", 5) == 1
    assert release(database, "slot_a", "new", 5) == 0
    with database.read() as session:
        status = {run.id: (run.status, run.failures) for run in session.query(Run)}
    assert status == {dead.run_id: ("queued", 1)} | dict.fromkeys(held, ("running", 0))
    again = claim(database, "host:2:slot_a:new")
    assert (again.run_id, again.attempt) == (dead.run_id, 2)
    with pytest.raises(FencedError), database.write() as session:
        hold(session, dead, LEASE)
