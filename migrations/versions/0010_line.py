"""Jobs stand in line: by share, priority and scheduled start, with limits.

What waits keeps its order: by when it was made.
"""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0010"
down_revision: str | None = "0009"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None


# An earlier version that is still at work while its data are upgraded leaves these columns
# out: what it makes is ready at once, and comes first.
def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("queue", sa.String(20), nullable=False, server_default="cpu"),
        sa.Column("share", sa.String(110), nullable=False, server_default="local/"),
        sa.Column("priority", sa.Integer(), nullable=False, server_default="0"),
        sa.Column("rank", sa.Float(53), nullable=False, server_default="0"),
        sa.Column("ready_at", sa.Float(53), nullable=True, server_default="0"),
        sa.Column("start_at", sa.DateTime(timezone=True), nullable=True),
        sa.Column("max_parallel_runs", sa.Integer(), nullable=True),
        sa.Column("memory_bytes", sa.BigInteger(), nullable=False, server_default="0"),
    ]


def upgrade() -> None:
    for column in _columns():
        op.add_column("jobs", column)
    if op.get_bind().dialect.name == "sqlite":
        made = "(julianday(created_at) - 2440587.5) * 86400.0"
    else:
        made = "extract(epoch from created_at)"
    runs = "from runs where runs.job_id = jobs.id"
    op.execute(
        f"update jobs set share = tenant || '/' || coalesce(key_id, ''), rank = {made}, "
        f"queue = coalesce((select min(queue) {runs}), 'cpu'), "
        f"ready_at = (select min(available_at) {runs} and runs.status = 'queued')"
    )
    op.create_index(
        "ix_jobs_line",
        "jobs",
        ["queue", "share", "rank", "id"],
        sqlite_where=sa.text("ready_at IS NOT NULL"),
        postgresql_where=sa.text("ready_at IS NOT NULL"),
    )
    op.create_table(
        "queue_turns",
        sa.Column("name", sa.String(110), nullable=False),
        sa.Column("started_at", sa.Float(53), nullable=False),
        sa.PrimaryKeyConstraint("name", name="pk_queue_turns"),
    )


def downgrade() -> None:
    raise RuntimeError("0009 knows no priorities: restore a backup instead.")
