"""How long a job was worked on, so that what is left of it is told without its pauses."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0024"
down_revision: str | None = "0023"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
# Older code writes neither column: of jobs that it starts the time since their start counts.
compatible_with = "0023"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("running_since", sa.DateTime(timezone=True), nullable=True))
    op.add_column(
        "jobs", sa.Column("worked_seconds", sa.Float(53), nullable=False, server_default="0")
    )


def downgrade() -> None:
    op.drop_column("jobs", "worked_seconds")
    op.drop_column("jobs", "running_since")
