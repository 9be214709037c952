"""The indexes of lists hold what is archived too; PostgreSQL learns what the new columns hold."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0018"
down_revision: str | None = "0017"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_LISTED = {
    "jobs": ["tenant", "id", "archived_at", "status", "kind", "name"],
    "runs": ["tenant", "id", "archived_at", "status", "optimizer", "model", "dataset", "name"],
}


def upgrade() -> None:
    connection = op.get_bind()
    for table, columns in _LISTED.items():
        op.drop_index(f"ix_{table}_listed", table)
        op.create_index(f"ix_{table}_listed", table, columns)
        if connection.dialect.name == "postgresql":
            # Until then it takes almost every row for archived, and plans lists for a few.
            connection.execute(sa.text(f"analyze {table}"))


def downgrade() -> None:
    raise RuntimeError("0017 is not made again: restore a backup instead.")
