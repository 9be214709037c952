"""What is written to the audit log, and how it is read."""

from datetime import datetime
from urllib.parse import quote

from sqlalchemy import Select, delete, select
from sqlalchemy.orm import Session

from mlhf_service.audit.models import AuditEntry
from mlhf_service.audit.schemas import AuditView, Decision
from mlhf_service.context import Caller
from mlhf_service.database import now
from mlhf_service.kit.ids import new_id

_REFUSED = (401, 403)
_FIRST_ERROR = 400
_MOST = 300


def add(
    session: Session,
    *,
    caller: Caller | None,
    method: str,
    path: str,
    status: int,
    route: str | None = None,
    address: str | None = None,
    request_id: str | None = None,
) -> None:
    """Write one entry."""
    session.add(
        AuditEntry(
            id=new_id("aud"),
            at=now(),
            tenant=caller.tenant if caller else "",
            key_id=caller.key_id if caller else None,
            name=caller.name if caller else "nobody",
            address=address,
            request_id=request_id,
            method=method[:10],
            route=route,
            path=quote(path, errors="replace")[:_MOST],
            status=status,
        )
    )


def forget_old(session: Session, before: datetime) -> None:
    """Delete the entries from before a time."""
    session.execute(delete(AuditEntry).where(AuditEntry.at < before))


def search(
    key_id: str | None = None, decision: Decision | None = None, tenant: str | None = None
) -> Select[AuditEntry]:
    statement = select(AuditEntry)
    if key_id is not None:
        statement = statement.where(AuditEntry.key_id == key_id)
    if tenant is not None:
        statement = statement.where(AuditEntry.tenant == tenant)
    if decision == "refused":
        statement = statement.where(AuditEntry.status.in_(_REFUSED))
    elif decision == "done":
        statement = statement.where(AuditEntry.status < _FIRST_ERROR)
    elif decision == "failed":
        failed = AuditEntry.status >= _FIRST_ERROR
        statement = statement.where(failed, AuditEntry.status.not_in(_REFUSED))
    return statement


def view(entry: AuditEntry) -> AuditView:
    decision = "done" if entry.status < _FIRST_ERROR else "failed"
    return AuditView.model_validate(
        {
            **{name: getattr(entry, name) for name in AuditView.model_fields if name != "decision"},
            "decision": "refused" if entry.status in _REFUSED else decision,
        }
    )
