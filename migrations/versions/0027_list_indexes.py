"""Lists of one kind of job, and the first runs of each, are read from indexes alone."""

from collections.abc import Sequence

from alembic import op

revision: str = "0027"
down_revision: str | None = "0026"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

compatible_with = "0020"  # only how fast rows are found has changed

_RUNS, _PLACE = "ix_runs_job_id_position", ["job_id", "position"]


def upgrade() -> None:
    op.create_index("ix_jobs_of_kind", "jobs", ["kind", "id", "archived_at", "tenant"])
    _replace(including=["id"])


def downgrade() -> None:
    _replace(including=[])
    op.drop_index("ix_jobs_of_kind", "jobs")


def _replace(including: list[str]) -> None:
    """Where an index can hold a column that is not part of its key."""
    if op.get_bind().dialect.name == "postgresql":
        op.drop_index(_RUNS, "runs")
        op.create_index(_RUNS, "runs", _PLACE, unique=True, postgresql_include=including)
