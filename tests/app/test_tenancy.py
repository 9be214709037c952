"""Sessions of a tenant see and change its rows only."""

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import aliased

from mlhf_service.database import Database, now
from mlhf_service.datasets import repository as datasets
from mlhf_service.jobs import idempotency
from mlhf_service.jobs import repository as jobs
from mlhf_service.jobs.models import Job
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.problems import Invalid
from mlhf_service.meta_checkpoints import repository as meta_checkpoints
from mlhf_service.meta_checkpoints import service as meta_checkpoint_service
from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.runs import repository as runs
from mlhf_service.runs.models import Run
from tests.app.conftest import Rows


@pytest.fixture
def two(rows: Rows) -> dict[str, tuple[str, str]]:
    """A job and a run of each of two tenants."""
    made = {}
    for tenant in ("a", "b"):
        job = rows.job(tenant=tenant)
        made[tenant] = job, rows.run(job, tenant=tenant)
    return made


def test_every_query_of_a_tenant_shows_its_own(
    database: Database, two: dict[str, tuple[str, str]]
) -> None:
    job_a, run_a = two["a"]
    job_b, run_b = two["b"]
    with database.of_tenant("a").read() as session:
        assert session.get(Job, job_b) is None
        assert session.get(Run, run_b) is None
        assert jobs.get(session, job_b) is None
        assert jobs.lock(session, job_b) is None
        assert jobs.runs_of(session, job_b) == []
        assert runs.get_many(session, [run_a, run_b]) == [session.get(Run, run_a)]
        assert [j.id for j in session.scalars(jobs.search(optimizer="adam"))] == [job_a]
        assert [r.id for r in session.scalars(runs.search())] == [run_a]
        assert session.scalar(select(func.count()).select_from(Run)) == 1
        assert session.scalars(select(Run.id)).all() == [run_a]
        other = aliased(Run)
        assert session.scalars(select(other.id)).all() == [run_a]
        found = jobs.get(session, job_a)
        assert found is not None
        assert [run.id for run in found.runs] == [run_a]
    with database.read() as session:  # a worker
        assert session.scalar(select(func.count()).select_from(Run)) == 2


def test_a_tenant_changes_its_own_only(database: Database, two: dict[str, tuple[str, str]]) -> None:
    with database.of_tenant("a").write() as session:
        session.execute(update(Job).values(name="changed"))
    with database.read() as session:
        names = {row[0]: row[1] for row in session.execute(select(Job.tenant, Job.name))}
    assert names == {"a": "changed", "b": "a job"}


def test_a_row_is_its_session_s_tenant_s(database: Database) -> None:
    fields = {"kind": "train", "name": "a", "status": "queued", "spec": {}, "created_at": now()}
    identity = new_id("job")
    with database.of_tenant("a").write() as session:
        session.add(Job(id=identity, **fields))
    with database.read() as session:
        assert session.get_one(Job, identity).tenant == "a"
    with pytest.raises(ValueError, match="of tenant b"):  # noqa: SIM117
        with database.of_tenant("a").write() as session:
            session.add(Job(id=new_id("job"), tenant="b", **fields))


def test_idempotency_keys_of_tenants_are_apart(database: Database) -> None:
    a, b = database.of_tenant("a"), database.of_tenant("b")
    for tenant, job in ((a, "job_a"), (b, "job_b")):
        assert idempotency.reserve(tenant, "same", "0" * 64) is None
        with tenant.write() as session:
            idempotency.complete(session, "same", job)
    assert idempotency.reserve(a, "same", "0" * 64) == "job_a"
    assert idempotency.reserve(b, "same", "0" * 64) == "job_b"
    with pytest.raises(Invalid):
        idempotency.reserve(b, "same", "1" * 64)


def test_aliases_of_tenants_are_apart(database: Database) -> None:
    made = {}
    for tenant in ("a", "b"):
        made[tenant] = new_id("mc")
        with database.of_tenant(tenant).write() as session:
            session.add(
                MetaCheckpoint(
                    id=made[tenant],
                    name="one",
                    optimizer="l2l",
                    source="upload",
                    lineage={},
                    size=1,
                    sha256="0" * 64,
                    storage_key="x",
                    created_at=now(),
                )
            )
            session.flush()
            meta_checkpoint_service.set_alias(session, "l2l", "best", made[tenant])
            meta_checkpoint_service.set_alias(session, "l2l", "best", made[tenant])
    with database.of_tenant("b").write() as session:
        assert meta_checkpoint_service.resolve(session, "l2l", "best") == made["b"]
        assert meta_checkpoints.get(session, made["a"]) is None
        meta_checkpoint_service.drop_alias(session, "l2l", "best")
    with database.read() as session:
        assert session.scalars(select(MetaCheckpointAlias.tenant)).all() == ["a"]


def test_data_sets_of_others_are_not_listed(database: Database) -> None:
    with database.of_tenant("a").read() as session:
        assert datasets.newest(session, None, 10) == []
