"""Keep each point's CPU seconds. Points from before have none."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0004"
down_revision: str | None = "0003"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("points", sa.Column("cpu_seconds", sa.Float(53), nullable=True))


def downgrade() -> None:
    raise RuntimeError("0003 cannot hold CPU seconds: restore a backup instead.")
