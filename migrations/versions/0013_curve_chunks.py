"""Keep curves as chunks of columns instead of a row a point; move what there is."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

from mlhf_service.runs.old_points import move_points

revision: str = "0013"
down_revision: str | None = "0012"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.create_table(
        "curve_chunks",
        sa.Column("run_id", sa.String(length=40), nullable=False),
        sa.Column("first_step", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("last_step", sa.BigInteger(), nullable=False),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("rows", sa.Integer(), nullable=False),
        sa.Column("digest", sa.String(length=32), nullable=False),
        sa.Column("extents", sa.JSON(), nullable=False),
        sa.Column("summary", sa.LargeBinary(), nullable=True),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(
            ["run_id"], ["runs.id"], name=op.f("fk_curve_chunks_run_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("run_id", "first_step", name=op.f("pk_curve_chunks")),
    )
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        # The bytes are compressed already; and a large table takes longer than a request may.
        for column in ("summary", "data"):
            op.execute(f"alter table curve_chunks alter column {column} set storage external")
        op.execute("set local statement_timeout = 0")
    move_points(connection)
    op.drop_table("points")


def downgrade() -> None:
    raise RuntimeError("0012 cannot hold chunks of curves: restore a backup instead.")
