"""HTTP for keys."""

from datetime import timedelta
from typing import Annotated

from fastapi import APIRouter, Path, Response, status

from mlhf_service.api.dependencies import CurrentCaller, ReadSession, WriteSession
from mlhf_service.context import Quota
from mlhf_service.keys import repository, service
from mlhf_service.keys.models import ApiKey
from mlhf_service.keys.schemas import KeyCreate, KeyView, Me, NewKey, RotateRequest
from mlhf_service.kit.pagination import Cursor, Limit, Order, Page, paginate

router = APIRouter(tags=["keys"])

KeyId = Annotated[str, Path(pattern=r"^key_[0-9a-z]{1,36}$", description="Id of a key.")]


@router.get("/me")
def get_me(caller: CurrentCaller) -> Me:
    """Who asks, as the service sees it."""
    return Me(
        tenant=caller.tenant,
        key_id=caller.key_id,
        name=caller.name,
        scopes=sorted(caller.scopes),
    )


@router.get("/keys")
def list_keys(
    session: ReadSession,
    with_ended: bool = True,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[KeyView]:
    """List the keys of the tenant, the newest first."""
    order = Order(ApiKey.id, ApiKey.id, down=True)
    return paginate(session, repository.search(with_ended), order, limit, cursor, service.view)


@router.post("/keys", status_code=status.HTTP_201_CREATED)
def create_key(
    request: KeyCreate, response: Response, session: WriteSession, caller: CurrentCaller
) -> NewKey:
    """Make a key of the own tenant. Its secret is shown here, and never again."""
    made = service.create(
        session,
        name=request.name,
        tenant=caller.tenant,
        scopes=request.scopes,
        expires_at=request.expires_at,
        quota=Quota(**request.quota.model_dump()),
        created_by=caller.key_id,
    )
    response.headers["Location"] = f"/v1/keys/{made.id}"
    return made


@router.get("/keys/{key_id}")
def get_key(key_id: KeyId, session: ReadSession) -> KeyView:
    """One key, without its secret."""
    return service.find(session, key_id)


@router.post("/keys/{key_id}/rotate")
def rotate_key(
    key_id: KeyId, session: WriteSession, request: RotateRequest | None = None
) -> NewKey:
    """Give a key a new secret; that before stays valid for a while."""
    overlap = timedelta(seconds=(request or RotateRequest()).overlap_seconds)
    return service.rotate(session, key_id, overlap)


@router.delete("/keys/{key_id}")
def revoke_key(key_id: KeyId, session: WriteSession, caller: CurrentCaller) -> KeyView:
    """Revoke a key; it stays in the list, for what was made with it names it."""
    return service.revoke(session, key_id, caller.key_id)
