"""Runs are found by hyperparameters, metrics and tags; projects, notes, names of data sets."""

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

from mlhf_service.runs import values

revision: str = "0023"
down_revision: str | None = "0022"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
# It only adds; what older code leaves out of its runs is completed (``queue.catch_up``).
compatible_with = "0020"

_BATCH = 500
_TEXT_ONLY = sa.text("text IS NOT NULL")


def upgrade() -> None:
    op.create_table(
        "projects",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
        sa.Column("description", sa.Text(), nullable=True),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("tenant", sa.String(64), nullable=False, server_default="local"),
        sa.Column("key_id", sa.String(40), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_projects"),
    )
    op.create_index("ix_projects_tenant_name", "projects", ["tenant", "name"], unique=True)
    for table in ("jobs", "runs"):
        op.add_column(table, sa.Column("project_id", sa.String(40), nullable=True))
        op.add_column(table, sa.Column("notes", sa.Text(), nullable=True))
    op.add_column("runs", sa.Column("tags", sa.JSON(none_as_null=True), nullable=True))
    op.add_column("runs", sa.Column("dataset_name", sa.String(200), nullable=True))
    op.create_table(
        "run_values",
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("key", sa.String(200), nullable=False),
        sa.Column("number", sa.Float(53), nullable=True),
        sa.Column("text", sa.String(200), nullable=True),
        sa.Column("tenant", sa.String(64), nullable=False, server_default="local"),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_run_values_run_id", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "key", name="pk_run_values"),
        sqlite_with_rowid=False,
    )
    connection = op.get_bind()
    _name_datasets(connection)
    _tag(connection)
    _fill(connection)
    for table in ("jobs", "runs"):
        op.create_index(f"ix_{table}_tenant_project_id_id", table, ["tenant", "project_id", "id"])
    op.create_index("ix_runs_tenant_dataset_name_id", "runs", ["tenant", "dataset_name", "id"])
    op.create_index("ix_run_values_number", "run_values", ["tenant", "key", "number", "run_id"])
    op.create_index(
        "ix_run_values_text",
        "run_values",
        ["tenant", "key", "text", "run_id"],
        sqlite_where=_TEXT_ONLY,
        postgresql_where=_TEXT_ONLY,
    )


def _name_datasets(connection: sa.Connection) -> None:
    connection.execute(
        sa.text(
            "update runs set dataset_name ="
            " (select name from datasets where datasets.id = runs.dataset)"
            " where dataset in (select id from datasets)"
        )
    )


def _tag(connection: sa.Connection) -> None:
    """Give runs the tags of their jobs."""
    tags: dict[str, dict[str, str]] = {}
    for job_id, key, value in connection.execute(
        sa.text("select job_id, key, value from job_tags")
    ):
        tags.setdefault(job_id, {})[key] = value
    runs = sa.table("runs", sa.column("job_id"), sa.column("tags", sa.JSON))
    statement = (
        sa.update(runs).where(runs.c.job_id == sa.bindparam("job")).values(tags=sa.bindparam("own"))
    )
    of_jobs = [{"job": job_id, "own": own} for job_id, own in tags.items()]
    for start in range(0, len(of_jobs), _BATCH):
        connection.execute(statement, of_jobs[start : start + _BATCH])


def _fill(connection: sa.Connection) -> None:
    """Derive the values of all runs, some at a time."""
    runs = sa.table(
        "runs",
        *(sa.column(name) for name in ("id", "tenant", "status")),
        *(sa.column(n, sa.JSON) for n in ("config", "summary", "totals", "progress", "tags")),
    )
    into = sa.table(
        "run_values", *(sa.column(n) for n in ("tenant", "run_id", "key", "number", "text"))
    )
    last = ""
    while True:
        query = sa.select(runs).where(runs.c.id > last).order_by(runs.c.id).limit(_BATCH)
        found = connection.execute(query).mappings().all()
        if not found:
            return
        rows = [
            values.row(run["tenant"], run["id"], key, value)
            for run in found
            for key, value in _values(run).items()
        ]
        if rows:
            connection.execute(sa.insert(into), rows)
        last = found[-1]["id"]


def _values(run: Mapping[Any, Any]) -> dict[str, Any]:
    ended = run["status"] in ("succeeded", "failed", "cancelled")
    measured = values.results(run["summary"], run["totals"], run["progress"], ended=ended)
    tags = {f"{values.TAGS}{key}": value for key, value in (run["tags"] or {}).items()}
    return {**values.parameters(run["config"]), **measured, **tags}


def downgrade() -> None:
    op.drop_table("run_values")
    for name, table in (
        ("ix_runs_tenant_dataset_name_id", "runs"),
        ("ix_runs_tenant_project_id_id", "runs"),
        ("ix_jobs_tenant_project_id_id", "jobs"),
    ):
        op.drop_index(name, table)
    for column in ("dataset_name", "tags", "notes", "project_id"):
        op.drop_column("runs", column)
    for column in ("notes", "project_id"):
        op.drop_column("jobs", column)
    op.drop_table("projects")
