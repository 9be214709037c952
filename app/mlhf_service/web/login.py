"""Log-in to the pages: with a key, or at an identity provider."""

from contextlib import suppress
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from fastapi import APIRouter, Form, Query, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import RedirectResponse

from mlhf_service.api.hosts import is_own_page
from mlhf_service.keys import logins
from mlhf_service.keys.authenticate import KEY, PERSON
from mlhf_service.keys.logins import LOGIN
from mlhf_service.kit.problems import NotFound
from mlhf_service.web.rendering import PageRoute, page

if TYPE_CHECKING:  # slow to import, and seldom set
    from mlhf_service.keys.oidc import Provider

router = APIRouter(include_in_schema=False, route_class=PageRoute)

_NEXT = "next"
Next = Annotated[str, Query(max_length=2000)]


@router.get("/login")
def login_page(request: Request, next: Next = "/") -> Response:
    """A form for a key, and a link to the identity provider where there is one."""
    if request.app.state.authenticator is None:
        return RedirectResponse("/", 303)
    return _form(request, next)


@router.post("/login")
def login(
    request: Request,
    key: Annotated[str, Form(max_length=200)] = "",
    next: Annotated[str, Form(max_length=2000)] = "/",
) -> Response:
    """Log in with a key."""
    if request.app.state.authenticator is None:
        return RedirectResponse("/", 303)
    if not is_own_page(request.scope, request.app.state.settings):
        return _form(request, next, 403, "Log in from this page.")
    lookup = request.app.state.authenticator.lookup(key.strip())
    if lookup is None:
        return _form(request, next, 401, "This key is not valid, or no longer.")
    request.session.clear()  # nothing of before the log-in is kept
    request.session[KEY] = lookup
    return RedirectResponse(_own_path(next), 303)


@router.post("/logout")
def logout(request: Request) -> Response:
    """Forget who was logged in."""
    if request.app.state.authenticator is not None:
        told = request.session.get(PERSON) or {}
        request.session.clear()
        if LOGIN in told:  # a copy of the cookie is worth nothing either
            with request.app.state.database.write() as session, suppress(NotFound):
                logins.end(session, told[LOGIN])
    return RedirectResponse("/login", 303)


@router.get("/login/oidc")
async def login_by_oidc(request: Request, next: Next = "/") -> Response:
    """To the identity provider."""
    provider = _provider(request)
    request.session.clear()
    request.session[_NEXT] = _own_path(next)
    answer: Response = await provider.send_there(request, str(request.url_for("oidc_callback")))
    return answer


@router.get("/login/oidc/callback")
async def oidc_callback(request: Request) -> Response:
    """Back from the identity provider."""
    person = await _provider(request).person(request)
    back = _own_path(str(request.session.get(_NEXT, "/")))
    login_id = await run_in_threadpool(_begin, request, person)
    request.session.clear()
    request.session[PERSON] = {**person, LOGIN: login_id}
    return RedirectResponse(back, 303)


def _begin(request: Request, person: dict[str, Any]) -> str:
    state, address = request.app.state, request.client.host if request.client else None
    agent = request.headers.get("user-agent")
    with state.database.write() as session:
        return logins.begin(session, person, state.settings.session_hours, address, agent)


def _form(request: Request, next: str, status: int = 200, wrong: str = "") -> Response:
    by_oidc = request.app.state.oidc is not None
    return page(request, "login.html", status, next=_own_path(next), wrong=wrong, by_oidc=by_oidc)


def _provider(request: Request) -> "Provider":
    provider: Provider | None = request.app.state.oidc
    if provider is None or request.app.state.authenticator is None:
        raise NotFound("No identity provider is set.")
    return provider


def _own_path(path: str) -> str:
    """``path`` where it is one of ours, else the first page: no log-in leads to another site."""
    try:
        parts = urlsplit(path)
    except ValueError:
        return "/"
    ours = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if ours and not parts.netloc and "\\" not in path else "/"
