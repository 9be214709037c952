"""PostgreSQL notifies those who follow a job of its events."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0014"
down_revision: str | None = "0013"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FUNCTION = """
create function mlhf_notify_job_event() returns trigger language plpgsql as $$
begin
    perform pg_notify('mlhf_job_events', new.job_id);
    return null;
end $$
"""
# Nobody follows a job before its first event: it is made with that.
_TRIGGER = """
create trigger mlhf_job_event after insert on job_events for each row when (new.seq > 1)
execute function mlhf_notify_job_event()
"""


def upgrade() -> None:
    connection = op.get_bind()
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(_FUNCTION))
        connection.execute(sa.text(_TRIGGER))


def downgrade() -> None:
    raise RuntimeError("0013 is not made again: restore a backup instead.")
