"""New rows are written as they were given, on both databases, and only to their own tenant."""

from typing import Any

import pytest
from sqlalchemy import func, select

from mlhf_service.database import Database, now
from mlhf_service.jobs.models import Job, JobTag
from mlhf_service.kit.inserting import insert_new


def _job(identity: str, **fields: Any) -> Job:
    fields = {"kind": "train", "name": "one", "status": "queued", "spec": {}, **fields}
    return Job(id=identity, created_at=now(), **fields)


def test_rows_are_read_back_as_given_with_the_tables_defaults(database: Database) -> None:
    first = _job("job_1", tenant="a", spec={"x": [1, None]}, priority=3)
    first.tags = [JobTag(job_id="job_1", key="k", value="v")]
    computed = _job("job_2", tenant="a", rank=func.length("four") * 1.0)
    with database.write() as session:
        insert_new(session, [first, *first.tags, computed, _job("job_3", tenant="b")])
    with database.read() as session:
        one, two, three = session.scalars(select(Job).order_by(Job.id))
        assert (one.spec, one.priority, one.queue) == ({"x": [1, None]}, 3, "cpu")
        assert [(tag.key, tag.value) for tag in one.tags] == [("k", "v")]
        assert (two.rank, three.rank) == (4.0, 0.0)
        assert (two.priority, two.error, two.tags) == (0, None, [])
        assert (one.tenant, three.tenant) == ("a", "b")


def test_neighbours_need_not_have_the_same_columns_set(database: Database) -> None:
    """Of many rows at once SQLAlchemy writes the columns of the first, and says nothing."""
    with database.write() as session:
        insert_new(session, [_job("job_1"), _job("job_2", priority=3), _job("job_3")])
    with database.read() as session:
        assert session.scalars(select(Job.priority).order_by(Job.id)).all() == [0, 3, 0]


def test_a_row_without_an_owner_is_the_sessions_tenants(database: Database) -> None:
    with database.of_tenant("a").write() as session:
        insert_new(session, [_job("job_1")])
    with database.read() as session:
        assert session.scalars(select(Job.tenant)).all() == ["a"]


def test_a_row_of_another_tenant_is_refused(database: Database) -> None:
    refused = pytest.raises(ValueError, match="tenant b in a session of a")
    with refused, database.of_tenant("a").write() as session:
        insert_new(session, [_job("job_1", tenant="b")])
    with database.read() as session:
        assert session.scalars(select(Job.id)).all() == []
