"""Search in names, on both databases."""

from typing import Any

import pytest
from sqlalchemy import select, text

from mlhf_service.database import Database
from mlhf_service.jobs.models import Job
from mlhf_service.kit.search import holds


@pytest.mark.parametrize(
    ("part", "found"),
    [("ADAM", {"an Adam"}), ("%", {"50% of_it"}), ("f_i", {"50% of_it"}), ("a/b", {"A/B"}),
     ("_", {"50% of_it"}), ("ofXit", set())],
)  # fmt: skip
def test_what_holds_a_text(database: Database, rows: Any, part: str, found: set[str]) -> None:
    for name in ("an Adam", "50% of_it", "A/B"):
        rows.job(name=name)
    with database.read() as session:
        assert set(session.scalars(select(Job.name).where(holds(Job.name, part)))) == found


def test_postgresql_can_use_its_index(database: Database) -> None:
    """It is of lower(name); a condition on anything else reads every row."""
    if database.is_sqlite:
        pytest.skip("SQLite has no such index")
    with database.read() as session:
        statement = select(Job.name).where(holds(Job.name, "part"))
        compiled = statement.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        plan = session.execute(text(f"explain {str(compiled).replace('%%', '%')}"))
        assert "lower((name)::text) ~~ '%part%'" in "\n".join(plan.scalars())
