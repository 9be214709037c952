"""How much a tenant and a key may have at a time, checked in the transaction that adds to it.

Tables are named here, not imported: whoever owns one may ask. Curves are not counted.
"""

from typing import Any

from sqlalchemy import (
    BigInteger,
    ColumnClause,
    ColumnElement,
    String,
    TableClause,
    cast,
    column,
    func,
    select,
    table,
    text,
)
from sqlalchemy.orm import Session

from mlhf_service.context import Caller, Quota
from mlhf_service.kit.problems import Problem
from mlhf_service.settings import Settings

_ENDED = ("succeeded", "failed", "cancelled")


def _owned(name: str, *columns: ColumnClause[Any]) -> TableClause:
    return table(name, column("tenant", String), column("key_id", String), *columns)


_JOBS = _owned("jobs", column("status", String))
_RUNS = _owned("runs", column("id", String), column("status", String))
_FILES = table("artifacts", column("run_id", String), column("size", BigInteger))
_DATASETS = _owned("datasets", column("size", BigInteger), column("deleted_at"))
_META_CHECKPOINTS = _owned("meta_checkpoints", column("size", BigInteger), column("source", String))

_NETWORKS = _owned("networks", column("size", BigInteger))


class QuotaExceeded(Problem):
    status, slug, title = 403, "quota-exceeded", "Quota exceeded"


def require_room(
    session: Session,
    settings: Settings,
    caller: Caller,
    *,
    jobs: int = 0,
    runs: int = 0,
    stored: int = 0,
) -> None:
    """Raise QuotaExceeded where so much more is too much for the caller's tenant or key.

    Until the commit nobody else of the tenant is told that there is room.
    """
    of_tenant = Quota(settings.quota_jobs, settings.quota_queued_runs, settings.quota_storage_bytes)
    quotas = {f"the tenant {caller.tenant}": (of_tenant, "tenant", caller.tenant)}
    if caller.key_id is not None:
        quotas[f"the key {caller.name}"] = (caller.quota, "key_id", caller.key_id)
    if all(quota == Quota() for quota, _, _ in quotas.values()):
        return
    if session.get_bind().dialect.name == "postgresql":  # on SQLite a writer is alone anyway
        lock = text("select pg_advisory_xact_lock(hashtext(:tenant))")
        session.execute(lock, {"tenant": f"quota of {caller.tenant}"})
    for owner, (quota, name, value) in quotas.items():
        if quota.jobs is not None and jobs:
            present = _count(session, _JOBS.c[name] == value, _JOBS.c.status.not_in(_ENDED))
            _check(owner, "jobs that have not ended", present, jobs, quota.jobs)
        if quota.queued_runs is not None and runs:
            present = _count(session, _RUNS.c[name] == value, _RUNS.c.status == "queued")
            _check(owner, "runs that wait", present, runs, quota.queued_runs)
        if quota.storage_bytes is not None:
            present = stored_bytes(session, name, value)
            _check(owner, "bytes stored", present, max(1, stored), quota.storage_bytes)


def stored_bytes(session: Session, owner: str, value: str) -> int:
    """Bytes of data sets, networks, uploaded meta-checkpoints and files of runs.

    Args:
        owner: The column that names the owner: ``tenant`` or ``key_id``.
    """
    datasets, meta_checkpoints = _DATASETS, _META_CHECKPOINTS
    sums = (
        select(_total(_FILES.c.size))
        .select_from(_FILES.join(_RUNS, _RUNS.c.id == _FILES.c.run_id))
        .where(_RUNS.c[owner] == value),
        select(_total(datasets.c.size)).where(
            datasets.c[owner] == value, datasets.c.deleted_at.is_(None)
        ),
        select(_total(_NETWORKS.c.size)).where(_NETWORKS.c[owner] == value),
        # Those that a run made are among its files.
        select(_total(meta_checkpoints.c.size)).where(
            meta_checkpoints.c[owner] == value, meta_checkpoints.c.source == "upload"
        ),
    )
    return sum(int(session.scalar(one) or 0) for one in sums)


def _total(size: ColumnElement[int]) -> ColumnElement[int]:
    return cast(func.coalesce(func.sum(size), 0), BigInteger)


def _count(session: Session, *conditions: ColumnElement[bool]) -> int:
    return int(session.scalar(select(func.count()).where(*conditions)) or 0)


def _check(owner: str, what: str, present: int, more: int, most: int) -> None:
    if present + more > most:
        raise QuotaExceeded(
            f"At most {most:,} {what} are allowed for {owner}; there are {present:,}, and this "
            f"needs {more:,} more."
        )
