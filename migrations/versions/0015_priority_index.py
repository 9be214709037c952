"""Lists of jobs are sorted by priority from an index."""

from collections.abc import Sequence

from alembic import op

revision: str = "0015"
down_revision: str | None = "0014"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_index("ix_jobs_tenant_priority_id", "jobs", ["tenant", "priority", "id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_tenant_priority_id", "jobs")
