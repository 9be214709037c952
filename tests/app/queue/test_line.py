"""Whose run starts next: priorities, turns, scheduled starts, and limits; on both databases."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import select, update

from mlhf_service.context import Caller, Context
from mlhf_service.database import Database, db_now, now
from mlhf_service.jobs import service
from mlhf_service.jobs.kinds.registry import parse
from mlhf_service.jobs.line import LEVEL_SECONDS
from mlhf_service.jobs.models import Job
from mlhf_service.jobs.state import settle
from mlhf_service.queue.claims import Limits, claim_next
from mlhf_service.queue.finish import Outcome, end_attempt
from mlhf_service.queue.leases import Claim, hold
from mlhf_service.queue.sweeper import restore_line
from mlhf_service.runs.models import Run
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage

LEASE = 60.0
SWEEP = {"kind": "sweep", "optimizers": [{"name": "sgd"}]}


class Line:
    """Jobs of several keys, and a worker that trains them in no time."""

    def __init__(self, settings: Settings, database: Database, storage: FolderStorage) -> None:
        self.settings, self.database, self.storage = settings, database, storage

    def submit(self, tenant: str = "local", key: str | None = None, **changes: Any) -> str:
        spec = {
            "kind": "train",
            "model": {"name": "mlp", "params": {"hidden": [4]}},
            "dataset": {"name": "digits"},
            "budget": {"steps": 1},
            **changes,
        }
        if spec["kind"] == "train":
            spec["optimizer"] = {"name": "sgd"}
        caller = Caller(tenant, key)
        with self.database.write() as session:
            context = Context(session, self.settings, self.storage, caller)
            return service.create(context, parse(spec)).id

    def claim(self, limits: Limits | None = None, owner: str = "host:1") -> Claim | None:
        return claim_next(self.database, "cpu", owner, LEASE, limits)

    def end(self, claim: Claim, how: str = "finished") -> None:
        with self.database.write() as session:
            job, run = hold(session, claim, LEASE)
            end_attempt(session, job, run, Outcome(how, {"status": "succeeded"}), 5)
            settle(session, job)

    def served(self, count: int) -> list[str]:
        """The jobs that one worker serves, one run after another."""
        jobs = []
        for _ in range(count):
            claim = self.claim()
            assert claim is not None
            jobs.append(claim.job_id)
            self.end(claim)
        return jobs

    def let_time_pass(self, seconds: float) -> None:
        """As if all that happened had happened so much earlier."""
        with self.database.write() as session:
            session.execute(update(Job).values(rank=Job.rank - seconds))


@pytest.fixture
def line(settings: Settings, database: Database, storage: FolderStorage) -> Line:
    return Line(settings, database, storage)


def test_a_higher_priority_starts_first(line: Line) -> None:
    low, middle, high = (line.submit(priority=p) for p in (-1, 0, 1))
    assert line.served(3) == [high, middle, low]


def test_waiting_makes_up_for_a_low_priority(line: Line) -> None:
    low = line.submit(priority=-2)
    line.let_time_pass(1.5 * LEVEL_SECONDS)
    above = line.submit()
    line.let_time_pass(LEVEL_SECONDS)  # low has waited for more than two levels
    last, urgent = line.submit(), line.submit(priority=1)
    assert line.served(4) == [above, urgent, low, last]


def test_a_single_job_starts_before_the_rest_of_a_sweep(line: Line) -> None:
    sweep = line.submit(**SWEEP, seeds=list(range(5)))
    assert line.served(1) == [sweep]
    running = line.claim()
    assert running is not None
    line.let_time_pass(LEVEL_SECONDS / 2)
    single = line.submit()
    line.end(running)
    assert line.served(4) == [single, sweep, sweep, sweep]


def test_single_jobs_do_not_keep_a_sweep_out(line: Line) -> None:
    """However many come: the sweep has waited longer than those that are new."""
    sweep = line.submit(**SWEEP, seeds=[0, 1, 2])
    assert line.served(1) == [sweep]
    served = []
    for _ in range(12):
        line.submit()
        line.let_time_pass(LEVEL_SECONDS / 3)
        served += line.served(1)
    assert served.count(sweep) == 2


def test_keys_take_turns_however_much_each_has_queued(line: Line) -> None:
    many = line.submit(key="key_a", **SWEEP, seeds=list(range(4)), priority=10)
    more = [line.submit(key="key_a") for _ in range(4)]
    other = [line.submit(key="key_b") for _ in range(2)]
    first = line.served(4)
    assert [job for job in first if job in other] == other
    assert first.count(many) == 2  # a priority counts within its key
    assert set(line.served(6)) == {many, *more}


def test_the_keys_of_a_tenant_share_its_turns(line: Line) -> None:
    crowd = {line.submit("crowd", f"key_{n}", **SWEEP, seeds=[0, 1]) for n in range(4)}
    loner = line.submit("loner", "key_l", **SWEEP, seeds=[0, 1, 2])
    served = line.served(6)
    assert served.count(loner) == 3
    assert len(crowd & set(served)) == 3


def test_whoever_runs_less_comes_first(line: Line) -> None:
    line.submit(key="key_a", **SWEEP, seeds=list(range(4)))
    line.submit(key="key_b", **SWEEP, seeds=list(range(4)))
    claims = [line.claim() for _ in range(4)]
    for claim in claims:
        assert claim is not None
    shares = dict(_shares(line.database))
    held = Counter(shares[claim.job_id] for claim in claims if claim)
    assert held == {"local/key_a": 2, "local/key_b": 2}
    mine = [claim for claim in claims if claim and shares[claim.job_id] == "local/key_a"]
    for claim in mine:
        line.end(claim)
    again = [line.claim(), line.claim()]
    assert {shares[claim.job_id] for claim in again if claim} == {"local/key_a"}


def _shares(database: Database) -> list[tuple[str, str]]:
    with database.read() as session:
        return [(job_id, share) for job_id, share in session.execute(select(Job.id, Job.share))]


def test_a_scheduled_job_waits_for_its_time(line: Line) -> None:
    later = line.submit(start_at=(now() + timedelta(hours=1)).isoformat(), priority=10)
    at_once = line.submit(start_at=(now() - timedelta(hours=1)).isoformat())
    assert line.served(1) == [at_once]
    assert line.claim() is None
    with line.database.write() as session:
        session.execute(update(Job).where(Job.id == later).values(ready_at=db_now()))
        session.execute(update(Run).where(Run.job_id == later).values(available_at=db_now()))
    assert line.served(1) == [later]


def test_a_scheduled_job_can_be_cancelled(line: Line) -> None:
    job_id = line.submit(start_at=(now() + timedelta(hours=1)).isoformat())
    with line.database.write() as session:
        assert service.cancel(session, job_id).status == "cancelled"
        assert session.get_one(Job, job_id).ready_at is None


def test_a_job_runs_no_more_than_it_allows_itself(line: Line) -> None:
    sweep = line.submit(**SWEEP, seeds=list(range(4)), max_parallel_runs=2)
    first, second = line.claim(), line.claim()
    assert first is not None
    assert second is not None
    assert line.claim() is None
    line.end(first, "interrupted")  # waits again, and so does the worker's next look
    third = line.claim()
    assert third is not None
    assert third.run_id == first.run_id
    assert line.claim() is None
    line.end(second)
    line.end(third)
    assert line.served(2) == [sweep, sweep]
    assert line.claim() is None


@pytest.mark.parametrize("limits", [Limits(per_key=1), Limits(per_tenant=1)])
def test_limits_of_keys_and_tenants_hold_across_their_jobs(line: Line, limits: Limits) -> None:
    for _ in range(2):
        line.submit("a", "key_a")
        line.submit("b", "key_b")
    first, second = line.claim(limits), line.claim(limits)
    assert first is not None
    assert second is not None
    assert line.claim(limits) is None
    line.end(first)
    assert line.claim(limits) is not None
    assert line.claim(limits) is None


GIB = 2**30


def _needing(line: Line, *memory: int) -> list[str]:
    made = [line.submit() for _ in memory]
    with line.database.write() as session:
        for job_id, needed in zip(made, memory, strict=True):
            session.execute(update(Job).where(Job.id == job_id).values(memory_bytes=needed))
    return made


def test_a_run_starts_only_where_its_memory_is_left(line: Line) -> None:
    first, _large, small = _needing(line, 2 * GIB, 3 * GIB, 1 * GIB)
    limits = Limits(memory_bytes=4 * GIB)
    claims = [line.claim(limits), line.claim(limits)]
    assert [claim.job_id for claim in claims if claim] == [first, small]
    assert line.claim(limits) is None
    assert line.claim(limits, owner="elsewhere:1") is not None  # another machine has room


def test_memory_is_kept_for_a_large_run_that_has_waited_long(line: Line) -> None:
    first, large, _small = _needing(line, 2 * GIB, 3 * GIB, 1 * GIB)
    limits = Limits(memory_bytes=4 * GIB)
    running = line.claim(limits)
    assert running is not None
    assert running.job_id == first
    line.let_time_pass(LEVEL_SECONDS)
    assert line.claim(limits) is None  # though the small one would fit
    line.end(running)
    following = line.claim(limits)
    assert following is not None
    assert following.job_id == large


def test_what_no_machine_has_keeps_nobody_waiting(line: Line) -> None:
    _huge, small = _needing(line, 9 * GIB, 1 * GIB)
    line.let_time_pass(LEVEL_SECONDS)
    claim = line.claim(Limits(memory_bytes=4 * GIB))
    assert claim is not None
    assert claim.job_id == small


@contextmanager
def _threads(count: int, work: Any) -> Iterator[list[BaseException]]:
    errors: list[BaseException] = []

    def guarded(number: int) -> None:
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    yield errors
    for thread in threads:
        thread.join()


def test_limits_hold_and_all_are_served_while_many_claim_at_once(line: Line) -> None:
    """Eight workers, three keys, limits of every sort: none is ever exceeded, nothing starves."""
    limits = Limits(per_tenant=5, per_key=3, memory_bytes=6 * GIB)
    for n in range(9):
        key, priority = f"key_{n % 3}", n % 5 - 2
        sweep = {**SWEEP, "seeds": [0, 1, 2], "max_parallel_runs": 2}
        line.submit(f"tenant_{n % 3 // 2}", key, priority=priority, **(sweep if n % 2 else {}))
    with line.database.write() as session:
        session.execute(update(Job).values(memory_bytes=GIB))
    exceeded: list[str] = []

    def work(number: int) -> None:
        while not _all_ended(line.database):
            claim = line.claim(limits, owner=f"host_{number % 2}:{number}")
            if claim is not None:
                exceeded.extend(_exceeded(line.database, limits))
                line.end(claim)

    with _threads(8, work) as errors:
        pass
    assert errors == []
    assert exceeded == []


def _all_ended(database: Database) -> bool:
    with database.read() as session:
        waiting = select(Run.id).where(Run.status.in_(["queued", "running"])).limit(1)
        return session.scalar(waiting) is None


def _exceeded(database: Database, limits: Limits) -> list[str]:
    with database.read() as session:
        rows = session.execute(
            select(Job.id, Job.share, Run.lease_owner, Job.max_parallel_runs, Job.memory_bytes)
            .join(Job, Job.id == Run.job_id)
            .where(Run.status == "running")
        ).all()
    of_job = Counter(row.id for row in rows)
    found = [f"job {r.id}" for r in rows if of_job[r.id] > (r.max_parallel_runs or 99)]
    for share, count in Counter(row.share for row in rows).items():
        found += [share] * (count > (limits.per_key or 99))
    for tenant, count in Counter(row.share.partition("/")[0] for row in rows).items():
        found += [tenant] * (count > (limits.per_tenant or 99))
    memory: Counter[str] = Counter()
    for row in rows:
        memory[str(row.lease_owner).partition(":")[0]] += row.memory_bytes
    return found + [host for host, used in memory.items() if used > (limits.memory_bytes or 0)]


def test_what_an_earlier_version_left_out_of_the_line_is_put_back(line: Line) -> None:
    job_id = line.submit()
    with line.database.write() as session:
        session.execute(update(Job).values(ready_at=None))
    assert line.claim() is None
    assert restore_line(line.database) == 1
    assert restore_line(line.database) == 0
    assert line.served(1) == [job_id]


def test_runs_on_data_sets_that_are_not_here_are_left_to_others(line: Line) -> None:
    elsewhere, here = line.submit(), line.submit()
    with line.database.write() as session:
        session.execute(update(Run).where(Run.job_id == elsewhere).values(dataset="mnist"))
    claim = claim_next(line.database, "cpu", "host:1", LEASE, None, ["mnist"])
    assert claim is not None
    assert claim.job_id == here
    assert claim_next(line.database, "cpu", "host:1", LEASE, None, ["mnist"]) is None
    assert line.served(1) == [elsewhere]
