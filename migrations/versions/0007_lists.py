"""Lists: indexes that hold all they filter by, and a tally of the runs of jobs that have ended.

Where PostgreSQL lets us make the extension pg_trgm, parts of names are found by trigrams.
"""

import json
from collections.abc import Sequence
from itertools import groupby
from typing import Any

import sqlalchemy as sa
from alembic import op
from sqlalchemy.exc import DBAPIError

revision: str = "0007"
down_revision: str | None = "0006"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_ENDED = "('succeeded', 'failed', 'cancelled')"
_ROWS = 1000


def upgrade() -> None:
    connection = op.get_bind()
    op.add_column("jobs", sa.Column("tally", sa.JSON(), nullable=True))
    op.drop_index("ix_jobs_tenant_id", "jobs")
    op.drop_index("ix_runs_tenant_id", "runs")
    op.drop_index("ix_job_tags_key_value", "job_tags")
    op.create_index("ix_jobs_listed", "jobs", ["tenant", "id", "status", "kind", "name"])
    op.create_index("ix_jobs_tenant_name_id", "jobs", ["tenant", "name", "id"])
    op.create_index("ix_job_tags_key_value_job_id", "job_tags", ["key", "value", "job_id"])
    listed = ["tenant", "id", "status", "optimizer", "model", "dataset", "name"]
    op.create_index("ix_runs_listed", "runs", listed)
    of_job = ["job_id", "optimizer", "model", "dataset", "tenant"]
    op.create_index("ix_runs_of_job", "runs", of_job)
    op.create_index("ix_runs_tenant_name_id", "runs", ["tenant", "name", "id"])
    if connection.dialect.name == "postgresql":
        _index_trigrams(connection)
    _keep_tallies(connection)


def _index_trigrams(connection: sa.Connection) -> None:
    try:
        with connection.begin_nested():
            connection.execute(sa.text("create extension if not exists pg_trgm"))
    except DBAPIError:  # not installed, or not ours to make: names are scanned
        return
    for table in ("jobs", "runs"):
        statement = (
            f"create index ix_{table}_trigrams on {table} using gin (lower(name) gin_trgm_ops)"
        )
        connection.execute(sa.text(statement))


def _keep_tallies(connection: sa.Connection) -> None:
    """Count the runs of every job that has ended, as ``jobs.tally`` does."""
    if connection.dialect.name == "postgresql":
        of = {name: f"(r.progress ->> '{name}')" for name in _PROGRESS}
    else:
        of = {name: f"json_extract(r.progress, '$.{name}')" for name in _PROGRESS}
    sums = ", ".join(f"sum(cast({of[name]} as float)) as {name}" for name in _PROGRESS)
    rows = connection.execute(
        sa.text(
            "select r.job_id, r.status, count(*) as runs, max(r.attempt) as attempts, "
            f"count({of['total_steps']}) as with_total, {sums} from runs r "
            f"join jobs j on j.id = r.job_id where j.status in {_ENDED} "
            "group by r.job_id, r.status order by r.job_id"
        )
    ).mappings()
    kept = [
        {"id": job_id, "tally": json.dumps(_tally(list(of_job)))}
        for job_id, of_job in groupby(rows.all(), key=lambda row: row["job_id"])
    ]
    statement = sa.text("update jobs set tally = :tally where id = :id")
    for start in range(0, len(kept), _ROWS):
        connection.execute(statement, kept[start : start + _ROWS])


_PROGRESS = ("step", "total_steps", "epoch", "samples", "fraction")


def _tally(rows: list[Any]) -> dict[str, Any]:
    def total(name: str) -> Any:
        return sum(row[name] or 0 for row in rows)

    runs = total("runs")
    done = [row["runs"] if row["status"] == "succeeded" else row["fraction"] or 0 for row in rows]
    return {
        "counts": {row["status"]: row["runs"] for row in rows},
        "attempts": max(row["attempts"] for row in rows),
        "step": int(total("step")),
        "total_steps": int(total("total_steps")) if total("with_total") == runs else None,
        "epoch": float(total("epoch")),
        "samples": int(total("samples")),
        "fraction": float(sum(done)),
        "spent": float(runs),
    }


def downgrade() -> None:
    raise RuntimeError("0006 keeps no tallies: restore a backup instead.")
