"""Keep the report of an upload, and name the rules by which the earlier ones were read.

What an upload does not say is chosen by rules, and those have changed: the size of images, the
type of columns, the column of labels. Data sets from before keep theirs (``rules: 1``), so
that their runs read the same numbers as ever.
"""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0003"
down_revision: str | None = "0002"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_FORMATS = ("npz", "image_folder", "hf_images", "table")

_datasets = sa.table(
    "datasets",
    sa.column("id", sa.String),
    sa.column("format", sa.String),
    sa.column("params", sa.JSON),
)


def upgrade() -> None:
    op.add_column("datasets", sa.Column("report", sa.JSON(none_as_null=True), nullable=True))
    connection = op.get_bind()
    uploads = sa.select(_datasets.c.id, _datasets.c.params).where(_datasets.c.format.in_(_FORMATS))
    for identity, params in connection.execute(uploads).all():
        connection.execute(
            sa.update(_datasets)
            .where(_datasets.c.id == identity)
            .values(params={**params, "rules": 1})
        )


def downgrade() -> None:
    raise RuntimeError(
        "0002 has no name for the rules by which uploads have been read since: restore a backup "
        "instead."
    )
