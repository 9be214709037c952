"""HTTP for the audit log."""

from typing import Annotated

from fastapi import APIRouter, Query

from mlhf_service.api.dependencies import ReadSession
from mlhf_service.audit import service
from mlhf_service.audit.models import AuditEntry
from mlhf_service.audit.schemas import AuditView, Decision
from mlhf_service.kit.pagination import Cursor, Limit, Order, Page, paginate

router = APIRouter(prefix="/audit", tags=["keys"])

KeyId = Annotated[str, Query(pattern=r"^[a-z]{3,4}_[0-9a-z]{1,36}$", description="Of this key.")]


@router.get("")
def list_audit_log(
    session: ReadSession,
    key_id: KeyId | None = None,
    decision: Decision | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[AuditView]:
    """What changed something of the tenant or was refused to its keys, the newest first.

    Requests without a valid key belong to no tenant: `mlhf audit` shows them.
    """
    order = Order(AuditEntry.id, AuditEntry.id, down=True)
    found = service.search(key_id, decision)
    return paginate(session, found, order, limit, cursor, service.view)
