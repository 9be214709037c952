"""Uploaded networks."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0021"
down_revision: str | None = "0020"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

compatible_with = "0020"  # who knows no networks makes and reads none


def upgrade() -> None:
    op.create_table(
        "networks",
        sa.Column("id", sa.String(40), nullable=False),
        sa.Column("tenant", sa.String(64), nullable=False, server_default="local"),
        sa.Column("key_id", sa.String(40), nullable=True),
        sa.Column("name", sa.String(250), nullable=False),
        sa.Column("sizes", sa.JSON, nullable=False),
        sa.Column("weights", sa.Boolean, nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("size", sa.BigInteger, nullable=False),
        sa.Column("storage_key", sa.String(400), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_networks"),
    )
    op.create_index("ix_networks_tenant_id", "networks", ["tenant", "id"])


def downgrade() -> None:
    op.drop_table("networks")
