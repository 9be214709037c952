"""A worker whose broker's messages do not reach it any more notices, and starts anew."""

from typing import Any

import pytest

from mlhf_service.context import Caller, Context
from mlhf_service.database import Database
from mlhf_service.jobs import service
from mlhf_service.jobs.kinds.registry import parse
from mlhf_service.queue.claims import Limits, claim_next, could_claim
from mlhf_service.queue.hearing import Hearing
from mlhf_service.settings import Settings
from mlhf_service.storage.folder import FolderStorage


class Worker:
    """A worker that looks by a clock of its own."""

    def __init__(self) -> None:
        self.seconds, self.waiting, self.restarts, self.rings = 0.0, True, 0, 0
        self.broker_is_away = False
        self.hearing = Hearing(
            *(lambda: self.waiting, self._ring, self._restart, lambda: self.seconds)
        )

    def _ring(self) -> None:
        if self.broker_is_away:
            raise ConnectionError("refused")
        self.rings += 1

    def _restart(self) -> None:
        self.restarts += 1

    def looks(self, seconds: float) -> int:
        """Look every five seconds for so long; return how often it started anew."""
        until = self.seconds + seconds
        while self.seconds < until:
            self.hearing.look()
            self.seconds += 5.0
        return self.restarts


def test_a_run_that_waits_before_an_idle_worker_has_it_start_anew() -> None:
    """Not before it has rung in vain: the bell may have been lost."""
    worker = Worker()
    assert worker.looks(20) == 0
    assert worker.rings == 4
    assert worker.looks(5) == 1


def test_while_the_broker_is_away_nobody_is_deaf() -> None:
    worker = Worker()
    worker.broker_is_away = True
    assert worker.looks(300) == 0
    worker.broker_is_away = False
    assert worker.looks(20) == 0
    assert worker.looks(5) == 1


def test_what_is_taken_in_time_has_not() -> None:
    worker = Worker()
    for _ in range(5):
        assert worker.looks(20) == 0
        worker.waiting = False  # taken by another
        assert worker.looks(5) == 0
        worker.waiting = True


def test_a_worker_that_answers_or_has_just_answered_hears() -> None:
    worker = Worker()
    with worker.hearing:
        assert worker.looks(100) == 0
    for _ in range(5):
        assert worker.looks(20) == 0
        with worker.hearing:
            pass


def test_what_could_be_claimed_is_what_would_be(
    settings: Settings, database: Database, storage: FolderStorage
) -> None:
    def submit(**changes: Any) -> None:
        spec = {
            "kind": "train",
            "model": {"name": "mlp", "params": {"hidden": [4]}},
            "dataset": {"name": "digits"},
            "optimizer": {"name": "sgd"},
            "budget": {"steps": 1},
            **changes,
        }
        with database.write() as session:
            service.create(Context(session, settings, storage, Caller("local", None)), parse(spec))

    def could(limits: Limits | None = None, queue: str = "cpu") -> bool:
        return could_claim(database, queue, "host", limits or Limits())

    assert not could()
    submit()
    assert could()
    assert could()  # nothing was taken
    assert not could(queue="gpu")
    assert not could(Limits(memory_bytes=1))
    assert claim_next(database, "cpu", "host:1", 60.0) is not None
    assert not could()
    submit()
    assert not could(Limits(per_tenant=1))
    assert could(Limits(per_tenant=2))


@pytest.mark.parametrize("count", [1, 3])
def test_answers_within_answers_end_one_by_one(count: int) -> None:
    worker = Worker()
    for _ in range(count):
        worker.hearing.__enter__()
    for left in range(count, 0, -1):
        assert worker.looks(60) == 0, left
        worker.hearing.__exit__()
    assert worker.looks(25) == 1
