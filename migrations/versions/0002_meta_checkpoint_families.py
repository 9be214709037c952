"""Tell the meta-checkpoints of MLHF's two variants apart.

Until now ``mlhf`` was the published form alone. Its default is another form with networks of
its own, so what was made before is named ``mlhf_paper``, and jobs and runs say
``variant: paper``: one that waits, resumes or is retried must stay what it was.
"""

from collections.abc import Callable, Sequence
from copy import deepcopy
from typing import Any

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: str | Sequence[str] | None = None
depends_on: str | Sequence[str] | None = None

_OLD, _NEW = "mlhf", "mlhf_paper"
_OLD_SHIPPED, _NEW_SHIPPED = "mc_shipped_mlhf", "mc_shipped_mlhf_paper"

Document = dict[str, Any]

_meta_checkpoints = sa.table(
    "meta_checkpoints", sa.column("optimizer", sa.String), sa.column("parent_id", sa.String)
)
_aliases = sa.table("meta_checkpoint_aliases", sa.column("optimizer", sa.String))
_runs = sa.table(
    "runs",
    sa.column("id", sa.String),
    sa.column("kind", sa.String),
    sa.column("optimizer", sa.String),
    sa.column("config", sa.JSON),
    sa.column("meta_checkpoint_id", sa.String),
)
_jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("spec", sa.JSON))


def upgrade() -> None:
    connection = op.get_bind()
    for table in (_meta_checkpoints, _aliases):
        connection.execute(sa.update(table).where(table.c.optimizer == _OLD).values(optimizer=_NEW))
    for column in (_meta_checkpoints.c.parent_id, _runs.c.meta_checkpoint_id):
        connection.execute(
            sa.update(column.table)  # type: ignore[arg-type]
            .where(column == _OLD_SHIPPED)
            .values({column.name: _NEW_SHIPPED})
        )
    _rewrite(_runs, _runs.c.config, _runs.c.optimizer == _OLD, _run_config)
    # A sweep's optimizers are only in its text.
    _rewrite(_jobs, _jobs.c.spec, sa.cast(_jobs.c.spec, sa.Text).contains(f'"{_OLD}"'), _job_spec)


def downgrade() -> None:
    raise RuntimeError(
        "0001 has no name for what MLHF's default form has made since: restore a backup instead."
    )


def _rewrite(
    table: sa.TableClause,
    column: sa.ColumnElement[Any],
    where: sa.ColumnElement[bool],
    change: Callable[[Document], None],
) -> None:
    connection = op.get_bind()
    name = str(column.key)
    identities = connection.scalars(sa.select(table.c.id).where(where)).all()
    for identity in identities:
        own = table.c.id == identity
        before = connection.execute(sa.select(column).where(own)).scalar_one()
        after = deepcopy(before)
        change(after)
        if after != before:
            connection.execute(sa.update(table).where(own).values({name: after}))


def _run_config(config: Document) -> None:
    if "tasks" in config:
        _meta_training(config)
    else:
        _component(config["optimizer"])


def _job_spec(spec: Document) -> None:
    if spec.get("kind") == "meta_train":
        _meta_training(spec)
    for component in (spec.get("optimizer"), *spec.get("optimizers", ())):
        if isinstance(component, dict):
            _component(component)


def _meta_training(config: Document) -> None:
    if config.get("optimizer") == _OLD:
        config.setdefault("variant", "paper")
        if config.get("start") == _OLD_SHIPPED:
            config["start"] = _NEW_SHIPPED


def _component(component: Document) -> None:
    """An optimizer with its params, in a sweep also with the values to try of each."""
    if component.get("name") != _OLD:
        return
    params, grid = component.setdefault("params", {}), component.get("grid", {})
    if "variant" not in grid:
        params.setdefault("variant", "paper")
    if params.get("meta_checkpoint") == _OLD_SHIPPED:
        params["meta_checkpoint"] = _NEW_SHIPPED
    if "meta_checkpoint" in grid:
        grid["meta_checkpoint"] = [
            _NEW_SHIPPED if name == _OLD_SHIPPED else name for name in grid["meta_checkpoint"]
        ]
