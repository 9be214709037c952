"""Files to delete after a commit, what holds that off, and when jobs and runs were archived."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0008"
down_revision: str | None = "0007"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    for table in ("jobs", "runs"):
        op.add_column(table, sa.Column("archived_at", sa.DateTime(timezone=True), nullable=True))
    op.create_table(
        "file_deletions",
        sa.Column("id", _NUMBER, autoincrement=True, nullable=False),
        sa.Column("storage_key", sa.String(400), nullable=False),
        sa.Column("not_before", sa.Float(53), nullable=False, server_default="0"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_file_deletions"),
    )
    op.create_table(
        "deletion_holds",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("expires_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_deletion_holds"),
    )


def downgrade() -> None:
    raise RuntimeError("0007 does not delete: restore a backup instead.")
