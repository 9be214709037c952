"""Which built-in data sets a worker has, so that none is promised that no worker can read."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0009"
down_revision: str | None = "0008"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("workers", sa.Column("datasets", sa.JSON(), nullable=True))


def downgrade() -> None:
    op.drop_column("workers", "datasets")
