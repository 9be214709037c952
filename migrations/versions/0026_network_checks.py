"""Checks of networks that an API without torch asks workers for."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0026"
down_revision: str | None = "0025"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

compatible_with = "0020"  # who knows no checks asks for none


def upgrade() -> None:
    op.create_table(
        "network_checks",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("storage_key", sa.String(400), nullable=False),
        sa.Column("weights", sa.Boolean, nullable=False),
        sa.Column("memory_bytes", sa.BigInteger, nullable=False),
        sa.Column("seconds", sa.Float(53), nullable=False),
        sa.Column("asked_at", sa.Float(53), nullable=False),
        sa.Column("taken_by", sa.String(40), nullable=True),
        sa.Column("taken_until", sa.Float(53), nullable=True),
        sa.Column("answer", sa.JSON(none_as_null=True), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_network_checks"),
    )


def downgrade() -> None:
    op.drop_table("network_checks")
