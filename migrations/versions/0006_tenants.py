"""Say to which tenant things belong, and with which key they were made.

What there is becomes that of the tenant ``local``, as which a service without keys works.
Aliases of meta-checkpoints and idempotency keys are names that tenants choose, so they are
unique in a tenant only.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0006"
down_revision: str | None = "0005"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OWNED = ("jobs", "runs", "datasets", "meta_checkpoints")
_NAMED = {"meta_checkpoint_aliases": ("optimizer", "alias"), "idempotency_keys": ("key",)}


def _tenant() -> sa.Column[str]:
    return sa.Column("tenant", sa.String(64), nullable=False, server_default="local")


def upgrade() -> None:
    for table in _OWNED:
        op.add_column(table, _tenant())
        op.add_column(table, sa.Column("key_id", sa.String(40), nullable=True))
        op.create_index(f"ix_{table}_tenant_id", table, ["tenant", "id"])
    for table, names in _NAMED.items():
        if op.get_bind().dialect.name == "sqlite":
            with op.batch_alter_table(table, recreate="always") as batch:
                batch.add_column(_tenant())
                batch.drop_constraint(f"pk_{table}", type_="primary")
                batch.create_primary_key(f"pk_{table}", ["tenant", *names])
        else:
            op.add_column(table, _tenant())
            op.drop_constraint(f"pk_{table}", table)
            op.create_primary_key(f"pk_{table}", table, ["tenant", *names])


def downgrade() -> None:
    raise RuntimeError("0005 has no name for tenants: restore a backup instead.")
