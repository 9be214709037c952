"""What can be done with meta-checkpoints."""

import hashlib
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from sqlalchemy.orm import Session

from mlhf.core.errors import SpecError
from mlhf_service.context import Caller
from mlhf_service.database import now
from mlhf_service.kit.ids import new_id
from mlhf_service.kit.pagination import Order, Page, paginate
from mlhf_service.kit.problems import Conflict, NotFound
from mlhf_service.meta_checkpoints import files, repository
from mlhf_service.meta_checkpoints.models import MetaCheckpoint, MetaCheckpointAlias
from mlhf_service.meta_checkpoints.schemas import MetaCheckpointView
from mlhf_service.storage.protocol import Storage, Stored

DEFAULT = "default"
_SHIPPED = "mc_shipped_"


def resolve(session: Session, family: str, name: str) -> str:
    """The id that an alias or an id stands for, in one family.

    Raises SpecError where there is none: users name meta-checkpoints, never files.
    """
    if name.startswith("mc_"):
        shipped = name.removeprefix(_SHIPPED) if name.startswith(_SHIPPED) else None
        found = repository.get(session, name, "share") if shipped is None else None
        of = found.optimizer if found else shipped if shipped in files.shipped() else None
        if of is None:
            raise SpecError("", "There is no meta-checkpoint of this id: see /v1/meta-checkpoints.")
        if of != family:
            raise SpecError("", _misfit(of, family))
        return name
    if "\0" not in name and (aliased := repository.by_alias(session, family, name)):
        return aliased.id
    if name == DEFAULT and family in files.shipped():
        return _SHIPPED + family
    raise SpecError(
        "",
        f"There is no meta-checkpoint of this name for {files.in_words(family)}: "
        "see /v1/meta-checkpoints.",
    )


def path_of(session: Session, storage: Storage, identity: str) -> Path:
    """The file of a meta-checkpoint. Raises SpecError where it is gone."""
    path = None
    if identity.startswith(_SHIPPED):
        path = files.shipped().get(identity.removeprefix(_SHIPPED))
    else:
        row = repository.get(session, identity)
        with suppress(FileNotFoundError):
            path = storage.local(row.storage_key) if row else None
    if path is None or not path.exists():
        raise SpecError("", f"The meta-checkpoint {identity} is no longer there.")
    return path


def find(session: Session, identity: str) -> MetaCheckpointView:
    return next(iter(_views(session, [_named(session, identity)])))


def page(
    session: Session, optimizer: str | None, limit: int, cursor: str | None
) -> Page[MetaCheckpointView]:
    """Those shipped with the product, then the newest."""
    order = Order(MetaCheckpoint.id, MetaCheckpoint.id, down=True)
    rows = paginate(session, repository.search(optimizer), order, limit, cursor, lambda row: row)
    views = _views(session, list(rows.data))
    if cursor is None:
        names = [n for n in files.shipped() if optimizer in (None, n)]
        views = _views(session, [_shipped(name) for name in names]) + views
    return Page(data=views, next_cursor=rows.next_cursor)


def ancestors(session: Session, view: MetaCheckpointView) -> list[MetaCheckpointView]:
    """What its training began from, and what that began from, as far as it is kept."""
    found: list[MetaCheckpointView] = []
    with suppress(NotFound):
        while view.parent_id and view.parent_id not in (one.id for one in found):
            view = find(session, view.parent_id)
            found.append(view)
    return found


def add(
    session: Session,
    *,
    name: str,
    stored: Stored,
    described: files.Described,
    source: str,
    identity: str | None = None,
    job_id: str | None = None,
    run_id: str | None = None,
    parent_id: str | None = None,
    owner: Caller | None = None,
) -> MetaCheckpoint:
    """Record a stored file as a meta-checkpoint of ``owner``."""
    owner = owner or Caller()
    row = MetaCheckpoint(
        id=identity or new_id("mc"),
        tenant=owner.tenant,
        key_id=owner.key_id,
        name=name,
        optimizer=described.optimizer,
        source=source,
        job_id=job_id,
        run_id=run_id,
        parent_id=parent_id,
        lineage=described.lineage,
        size=stored.size,
        sha256=stored.sha256,
        storage_key=stored.key,
        created_at=now(),
    )
    session.add(row)
    session.flush()
    return row


def set_alias(session: Session, optimizer: str, alias: str, identity: str) -> MetaCheckpointView:
    """Let an alias name a meta-checkpoint; one that named another is moved."""
    if identity == _SHIPPED + optimizer and alias == DEFAULT:
        drop_alias(session, optimizer, alias)  # back to what is shipped
        return find(session, identity)
    row = repository.get(session, identity)
    if row is None:
        raise NotFound("There is no meta-checkpoint of this id.")
    if row.optimizer != optimizer:
        raise Conflict(_misfit(row.optimizer, optimizer))
    session.merge(
        MetaCheckpointAlias(
            tenant=row.tenant, optimizer=optimizer, alias=alias, meta_checkpoint_id=identity
        )
    )
    session.flush()
    return find(session, identity)


def drop_alias(session: Session, optimizer: str, alias: str) -> None:
    row = repository.alias_of(session, optimizer, alias)
    if row is not None:
        session.delete(row)
        session.flush()


def _named(session: Session, identity: str) -> MetaCheckpoint:
    if identity.startswith(_SHIPPED) and identity.removeprefix(_SHIPPED) in files.shipped():
        return _shipped(identity.removeprefix(_SHIPPED))
    row = repository.get(session, identity)
    if row is None:
        raise NotFound("There is no meta-checkpoint of this id.")
    return row


def _misfit(of: str, wanted: str) -> str:
    return f"This meta-checkpoint is for {files.in_words(of)}, not for {files.in_words(wanted)}."


@lru_cache
def _shipped(family: str) -> MetaCheckpoint:
    """The shipped meta-checkpoint of a family, as a row that is in no database."""
    path = files.shipped()[family]
    described = files.describe(path)
    content = path.read_bytes()
    return MetaCheckpoint(
        id=_SHIPPED + family,
        name=f"shipped with the product, for {files.in_words(family)}",
        optimizer=family,
        source="shipped",
        lineage=described.lineage,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
        storage_key="",
    )


def _views(session: Session, rows: list[MetaCheckpoint]) -> list[MetaCheckpointView]:
    counts = repository.uses(session, [row.id for row in rows])
    named: dict[str, list[str]] = {}
    taken = set()
    for alias in repository.aliases(session):
        named.setdefault(alias.meta_checkpoint_id, []).append(alias.alias)
        taken.add((alias.optimizer, alias.alias))
    for optimizer in files.shipped():
        if (optimizer, DEFAULT) not in taken:
            named.setdefault(_SHIPPED + optimizer, []).append(DEFAULT)
    return [
        MetaCheckpointView.model_validate(
            {
                "id": row.id,
                "name": row.name,
                "optimizer": row.optimizer,
                "source": row.source,
                "aliases": named.get(row.id, []),
                "job_id": row.job_id,
                "run_id": row.run_id,
                "parent_id": row.parent_id,
                "lineage": row.lineage,
                "size": row.size,
                "sha256": row.sha256,
                "used_by": counts.get(row.id, 0),
                "created_at": row.created_at,
            }
        )
        for row in rows
    ]
