"""Events of jobs: numbered without gaps, written together, and with their transaction or not."""

from typing import Any

from sqlalchemy import event, select
from sqlalchemy.orm import Session

from mlhf_service.database import Database
from mlhf_service.jobs.journal import add_event
from mlhf_service.jobs.models import Job, JobEvent
from mlhf_service.jobs.repository import lock
from mlhf_service.jobs.state import settle
from mlhf_service.queue.claims import claim_next
from mlhf_service.queue.finish import Outcome, end_attempt
from mlhf_service.queue.leases import hold

FINISHED = Outcome("finished", {"status": "succeeded"})


def told(database: Database, job_id: str) -> list[tuple[int, str, Any]]:
    with database.read() as session:
        rows = session.scalars(select(JobEvent).where(JobEvent.job_id == job_id))
        return [(e.seq, e.type, e.data) for e in sorted(rows, key=lambda e: e.seq)]


def test_events_of_a_transaction_are_numbered_in_order_with_one_update(
    database: Database, submit: Any
) -> None:
    first, second = submit(), submit()
    with database.write() as session:
        for number, job_id in enumerate((first, second, first, first)):
            add_event(session, job_id, "log", {"n": number})
    assert told(database, first)[1:] == [(2 + i, "log", {"n": n}) for i, n in enumerate((0, 2, 3))]
    assert told(database, second)[1:] == [(2, "log", {"n": 1})]
    with database.read() as session:
        assert session.get_one(Job, first).event_seq == 4


def test_events_go_with_their_transaction(database: Database, submit: Any) -> None:
    job_id = submit()
    with Session(database.engine) as session:  # one session, two transactions
        lock(session, job_id)
        add_event(session, job_id, "log", {"n": 1})
        session.rollback()
        add_event(session, job_id, "log", {"n": 2})
        session.commit()
    assert told(database, job_id)[1:] == [(2, "log", {"n": 2})]


def test_of_a_job_that_is_gone_nothing_is_told(database: Database, submit: Any) -> None:
    with database.write() as session:
        add_event(session, "job_none", "log", {})
    assert told(database, "job_none") == []


def test_a_claim_and_an_end_take_few_statements(database: Database, submit: Any) -> None:
    """Each costs about a millisecond, while other workers wait for their turn."""
    for _ in range(3):
        submit()
    sent: list[str] = []

    @event.listens_for(database.engine, "before_cursor_execute")
    def _count(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if not statement.startswith("BEGIN"):
            sent.append(statement)

    claim = claim_next(database, "cpu", "me", 30.0)
    assert claim is not None
    assert len(sent) <= 12, sent
    sent.clear()
    with database.write() as session:
        job, run = hold(session, claim, 30.0)
        end_attempt(session, job, run, FINISHED, 5)
        settle(session, job)
    assert len(sent) <= 9, sent
    events = [(type_, data) for _, type_, data in told(database, claim.job_id)]
    statuses = [data["status"] for type_, data in events if type_ == "status"]
    assert statuses == ["queued", "running", "running", "succeeded", "succeeded"]
    (said,) = (data["message"] for type_, data in events if type_ == "log")
    assert said.startswith("succeeded after 0 steps")
