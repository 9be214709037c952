"""HTTP for log-ins by OpenID Connect: see them, and end one."""

from typing import Annotated

from fastapi import APIRouter, Path, Query

from mlhf_service.api.dependencies import ReadSession, WriteSession
from mlhf_service.keys import logins
from mlhf_service.keys.logins import Login
from mlhf_service.keys.schemas import LoginView
from mlhf_service.kit.pagination import Cursor, Limit, Order, Page, paginate

router = APIRouter(prefix="/logins", tags=["keys"])

LoginId = Annotated[str, Path(pattern=r"^login_[0-9a-z]{1,34}$", description="Id of a log-in.")]
PersonId = Annotated[str, Query(pattern=r"^oidc_[0-9a-f]{1,32}$", description="Of this person.")]


@router.get("")
def list_logins(
    session: ReadSession,
    key_id: PersonId | None = None,
    limit: Limit = 50,
    cursor: Cursor = None,
) -> Page[LoginView]:
    """List the log-ins of people of the tenant that still count, the newest first."""
    order = Order(Login.id, Login.id, down=True)
    return paginate(session, logins.search(key_id), order, limit, cursor, logins.view)


@router.delete("/{login_id}")
def end_login(login_id: LoginId, session: WriteSession) -> LoginView:
    """End one: its browser is logged out within two seconds, other browsers are not."""
    return logins.end(session, login_id)
