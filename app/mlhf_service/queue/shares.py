"""Shares take turns: tenants first, then the keys of a tenant, however much each has queued.

Whoever has the fewest runs running comes next; among equals, whoever waits the longest since a
run of theirs last started. That is max-min fairness over the workers held, and round robin where
there is one worker. A priority counts among the jobs of one share only (``jobs.line``).
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Select, bindparam, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session

from mlhf_service.database import db_now
from mlhf_service.jobs.models import Job, QueueTurn
from mlhf_service.runs.models import Run
from mlhf_service.runs.status import LOGGED


@dataclass(frozen=True)
class Running:
    """What runs now, of all queues.

    Attributes:
        shares: Runs of each share.
        tenants: Runs of each tenant.
        memory: Bytes that the runs of each host are estimated to need.
    """

    shares: Counter[str]
    tenants: Counter[str]
    memory: Counter[str]


def tenant_of(share: str) -> str:
    return share.rpartition("/")[0]


def host_of(owner: str) -> str:
    """The host in the name by which a worker holds leases."""
    return owner.partition(":")[0]


_RUNNING = (
    select(Job.share, Run.lease_owner, Job.memory_bytes)
    .join(Job, Job.id == Run.job_id)
    .where(Run.status == "running", Run.kind != LOGGED)
)


def running(session: Session) -> Running:
    """Count what runs. There are no more such runs than workers."""
    found = Running(Counter(), Counter(), Counter())
    for share, owner, memory in session.execute(_RUNNING):
        found.shares[share] += 1
        found.tenants[tenant_of(share)] += 1
        found.memory[host_of(owner or "")] += memory
    return found


_LAST = select(QueueTurn.name, QueueTurn.started_at).where(
    QueueTurn.name.in_(bindparam("names", expanding=True))
)


def in_turn(session: Session, queue: str, now_running: Running) -> list[str]:
    """The shares that have something in line, the next to be served first."""
    waiting = _waiting(session, queue)
    if len(waiting) < 2:
        return list(waiting)
    names = sorted({*waiting, *map(tenant_of, waiting)})
    last = {row.name: row.started_at for row in session.execute(_LAST, {"names": names})}

    def turn(share: str) -> tuple[int, float, int, float, str]:
        tenant = tenant_of(share)
        return (
            now_running.tenants[tenant],
            last.get(tenant, 0.0),
            now_running.shares[share],
            last.get(share, 0.0),
            share,
        )

    return sorted(waiting, key=turn)


def _shares_in_line() -> Select[str]:
    ahead = (Job.queue == bindparam("in_queue"), Job.ready_at.is_not(None))
    share = select(func.min(Job.share).label("share")).where(*ahead).cte("waiting", recursive=True)
    following = select(func.min(Job.share)).where(*ahead, Job.share > share.c.share)
    all_shares = share.union_all(
        select(following.scalar_subquery()).where(share.c.share.is_not(None))
    )
    return select(all_shares.c.share).where(all_shares.c.share.is_not(None))


_IN_LINE = _shares_in_line()


def _waiting(session: Session, queue: str) -> Sequence[str]:
    """The shares in line, one look into the index each, however long the line is."""
    return session.scalars(_IN_LINE, {"in_queue": queue}).all()


def _took_turn(dialect: Any) -> Any:
    names: list[Any] = [bindparam("share"), bindparam("of_tenant")]
    statement = dialect.insert(
        QueueTurn.__table__
    ).values(  # not the class: that renames parameters
        [{"name": name, "started_at": db_now()} for name in names]
    )
    return statement.on_conflict_do_update(
        index_elements=["name"], set_={"started_at": statement.excluded.started_at}
    )


_TOOK_TURN = {"sqlite": _took_turn(sqlite), "postgresql": _took_turn(postgresql)}


def took_turn(session: Session, share: str) -> None:
    """A run of the share starts now: others come first."""
    statement = _TOOK_TURN[session.get_bind().dialect.name]
    session.execute(statement, {"share": share, "of_tenant": tenant_of(share)})
