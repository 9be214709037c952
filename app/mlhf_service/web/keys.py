"""The page of keys."""

from fastapi import APIRouter, Request, Response

from mlhf_service.api.dependencies import ReadSession
from mlhf_service.keys import repository, service
from mlhf_service.keys.models import ApiKey
from mlhf_service.kit.pagination import Cursor, Order, paginate
from mlhf_service.web.formats import query
from mlhf_service.web.rendering import PageRoute, page

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_A_PAGE = 100


@router.get("/keys")
def keys_page(request: Request, session: ReadSession, cursor: Cursor = None) -> Response:
    """The keys of the tenant, and a form to make one."""
    order = Order(ApiKey.id, ApiKey.id, down=True)
    found = paginate(session, repository.search(), order, _A_PAGE, cursor, service.view)
    older = query(cursor=found.next_cursor) if found.next_cursor else None
    return page(request, "keys.html", keys=found.data, older=older)
