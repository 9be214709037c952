"""Queries about what depends on what, and the changes that deleting makes elsewhere."""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, String, and_, cast, delete, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from mlhf_service.deletions.dependants import SHOWN, Dependants
from mlhf_service.jobs.idempotency import IdempotencyKey
from mlhf_service.jobs.models import Job
from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.runs.models import Artifact, Run
from mlhf_service.runs.status import ACTIVE

_NO_SYNC = {"synchronize_session": False}


def runs_to_end(session: Session, job_id: str) -> Dependants | None:
    """The runs of a job that have not ended."""
    relation = "of it have not ended"
    return _found(
        session, Run.id, Run.job_id == job_id, Run.status.in_(ACTIVE), kind="run", relation=relation
    )


def meta_checkpoints_of(session: Session, column: str, identity: str) -> Dependants | None:
    """The meta-checkpoints that a job or a run made; ``column`` is job_id or run_id."""
    made = getattr(MetaCheckpoint, column) == identity
    relation = "came of it"
    return _found(session, MetaCheckpoint.id, made, kind="meta_checkpoint", relation=relation)


def users_of_dataset(session: Session, dataset_id: str, *, active: bool) -> Dependants | None:
    """Runs that train, or have trained, on a data set."""
    # A meta-training names all of its data sets in its configuration only.
    within = cast(Run.config, String).contains(f'"{dataset_id}"')
    used = or_(Run.dataset == dataset_id, and_(Run.kind == "meta_train", within))
    return _used(session, used, active, ("are to train on it", "trained on it"))


def users_of_meta_checkpoint(session: Session, identity: str, *, active: bool) -> Dependants | None:
    used = Run.meta_checkpoint_id == identity
    return _used(session, used, active, ("are to use it", "used it"))


def users_of_network(session: Session, identity: str, *, active: bool) -> Dependants | None:
    within = cast(Run.config, String).contains(f'"{identity}"')
    return _used(session, within, active, ("are to train it", "trained it"))


def aliases_of(session: Session, identity: str) -> Dependants | None:
    named = MetaCheckpointAlias.meta_checkpoint_id == identity
    column = MetaCheckpointAlias.alias
    return _found(session, column, named, kind="alias", relation="name it")


def children_of(session: Session, identity: str) -> Dependants | None:
    began = MetaCheckpoint.parent_id == identity
    relation = "began from it"
    return _found(session, MetaCheckpoint.id, began, kind="meta_checkpoint", relation=relation)


def _used(
    session: Session, used: ColumnElement[bool], active: bool, relations: tuple[str, str]
) -> Dependants | None:
    status = Run.status.in_(ACTIVE) if active else Run.status.not_in(ACTIVE)
    return _found(session, Run.id, used, status, kind="run", relation=relations[not active])


def _found(
    session: Session,
    column: InstrumentedAttribute[str],
    *conditions: ColumnElement[bool],
    kind: str,
    relation: str,
) -> Dependants | None:
    statement = select(column).where(*conditions).order_by(column.desc()).limit(SHOWN)
    ids = list(session.scalars(statement))
    if not ids:
        return None
    total = len(ids)
    if total == SHOWN:
        total = session.scalar(select(func.count(column)).where(*conditions)) or 0
    return Dependants.of(kind, relation, ids, total)


def forget_job(session: Session, job_id: str) -> None:
    """Delete a job's row and all that is its own; what came of it stands alone from now on."""
    session.execute(
        update(MetaCheckpoint)
        .where(MetaCheckpoint.job_id == job_id)
        .values(job_id=None, run_id=None)
        .execution_options(**_NO_SYNC)
    )
    for column in (Job.retried_from, Job.cloned_from):
        session.execute(
            update(Job).where(column == job_id).values({column: None}).execution_options(**_NO_SYNC)
        )
    session.execute(delete(IdempotencyKey).where(IdempotencyKey.job_id == job_id))
    # Its runs, their curves, artifacts, events and tags go with it (ON DELETE CASCADE).
    session.execute(delete(Job).where(Job.id == job_id).execution_options(**_NO_SYNC))
    session.expire_all()


def forget_run(session: Session, run_id: str) -> None:
    session.execute(
        update(MetaCheckpoint)
        .where(MetaCheckpoint.run_id == run_id)
        .values(run_id=None)
        .execution_options(**_NO_SYNC)
    )
    session.execute(delete(Run).where(Run.id == run_id).execution_options(**_NO_SYNC))
    session.expire_all()


def forget_meta_checkpoint(session: Session, identity: str) -> None:
    session.execute(
        delete(MetaCheckpointAlias).where(MetaCheckpointAlias.meta_checkpoint_id == identity)
    )
    session.execute(
        update(MetaCheckpoint)
        .where(MetaCheckpoint.parent_id == identity)
        .values(parent_id=None)
        .execution_options(**_NO_SYNC)
    )
    session.execute(delete(MetaCheckpoint).where(MetaCheckpoint.id == identity))
    session.expire_all()


def forget_artifact(session: Session, run_id: str, name: str) -> None:
    session.execute(delete(Artifact).where(Artifact.run_id == run_id, Artifact.name == name))


def stored_bytes(session: Session, run_ids: Sequence[str]) -> int:
    """Bytes of the files of some runs."""
    size = select(func.coalesce(func.sum(Artifact.size), 0)).where(Artifact.run_id.in_(run_ids))
    return int(session.scalar(size) or 0)
