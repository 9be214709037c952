"""Which runs were written through to MLflow, and how far."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0025"
down_revision: str | None = "0024"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None
# It only adds what older code does not look at.
compatible_with = "0023"


def upgrade() -> None:
    op.create_table(
        "mirrored_runs",
        sa.Column("run_id", sa.String(40), nullable=False),
        sa.Column("due_at", sa.Float(53), nullable=False),
        sa.Column("failures", sa.Integer(), nullable=False),
        sa.Column("written", sa.String(100), nullable=True),
        sa.Column("done", sa.Boolean(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name="fk_mirrored_runs_run_id_runs", ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", name="pk_mirrored_runs"),
    )
    op.create_index("ix_mirrored_runs_done_due_at", "mirrored_runs", ["done", "due_at"])


def downgrade() -> None:
    op.drop_table("mirrored_runs")
