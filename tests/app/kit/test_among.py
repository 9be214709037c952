"""Whether a column has one of many texts, on both databases."""

from typing import Any

import pytest
from sqlalchemy import select, text

from mlhf_service.database import Database
from mlhf_service.jobs.models import Job
from mlhf_service.kit.among import among


@pytest.mark.parametrize("wanted", [set(), {"a"}, {"a", "c's", "none"}])
def test_the_rows_that_have_one_are_found(database: Database, rows: Any, wanted: set[str]) -> None:
    for name in ("a", "b", "c's"):
        rows.job(name=name)
    with database.read() as session:
        found = session.scalars(select(Job.name).where(among(session, Job.name, wanted)))
        assert set(found) == wanted - {"none"}


@pytest.mark.parametrize("wrong", [["a,b"], ["a", ""], [","]])
def test_what_the_database_would_split_otherwise_is_refused(
    database: Database, wrong: list[str]
) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite takes each as a placeholder")
    with database.read() as session, pytest.raises(ValueError, match="empty or hold a comma"):
        among(session, Job.name, wrong)


def test_postgresql_gets_one_parameter_and_can_use_its_index(database: Database) -> None:
    if database.is_sqlite:
        pytest.skip("SQLite takes each as a placeholder")
    with database.read() as session:
        statement = select(Job.spec).where(among(session, Job.id, ["a", "b", "c"]))
        assert len(statement.compile(session.get_bind()).params) == 1
        compiled = statement.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        session.execute(text("set local enable_seqscan = off"))
        plan = session.execute(text(f"explain {compiled}"))
        assert "Index Cond: ((id)::text = " in "\n".join(plan.scalars())
