"""The gate before every route: who asks, how often, whether that one may, and a note of it.

What has no decision in ``api.policy`` is refused, whoever asks.
"""

import logging
from collections.abc import Callable
from urllib.parse import quote

from sqlalchemy.exc import OperationalError, TimeoutError
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhf_service import logs
from mlhf_service.api.hosts import is_own_page, route_path
from mlhf_service.api.policy import Need, decide
from mlhf_service.context import Caller
from mlhf_service.keys.authenticate import Authenticator, Identity
from mlhf_service.keys.journal import Journal
from mlhf_service.keys.rates import Kind, Rates, Verdict
from mlhf_service.kit.problems import Unavailable, document, response
from mlhf_service.settings import Settings

log = logging.getLogger(__name__)

NOBODY = Caller(tenant="", name="nobody", scopes=frozenset())  # owns nothing, may do nothing
_SAFE = {"GET", "HEAD", "OPTIONS"}
_LOGIN = ("POST", "/login")
_CHALLENGE = {"WWW-Authenticate": 'Bearer realm="mlhf"'}

ServesRoute = Callable[[Scope], bool]
ErrorPage = Callable[[Scope, int, str, str], Response]


class Gate:
    """Puts the caller into the request's state, or answers in the route's place.

    Args:
        authenticator: None: no keys are asked for, and everybody is ``local``.
        rates: How often a key may ask; None: as often as it likes.
        journal: Where what changes something and what is refused is noted.
        serves: Whether the router has a route for a request.
        error_page: Shows a refusal to a person.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: Settings,
        authenticator: Authenticator | None,
        rates: Rates | None,
        journal: Journal | None,
        serves: ServesRoute,
        error_page: ErrorPage,
    ) -> None:
        self.app = app
        self._settings = settings
        self._authenticator = authenticator
        self._rates = rates
        self._journal = journal
        self._serves = serves
        self._error_page = error_page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # there are no websockets
        try:
            identity, verdict = await self._identify(scope)
        except (OperationalError, TimeoutError):
            log.warning("the database does not answer: no key can be checked")
            problem = Unavailable("The database does not answer. Try again.")
            await response(problem.document(), {"Retry-After": "2"})(scope, receive, send)
            return
        caller = identity.caller or NOBODY
        scope.setdefault("state", {})["caller"] = caller
        if verdict is not None and not verdict.allowed:
            await _too_many(verdict)(scope, receive, send)
            return
        refusal = self._refusal(scope, identity)
        if identity.caller is not None and verdict is not None:
            send = _with_headers(send, verdict)
        if self._journal is not None:
            send = self._noted(scope, identity.caller, send)
        with logs.bound(key_id=caller.key_id):
            await (refusal or self.app)(scope, receive, send)

    async def _identify(self, scope: Scope) -> tuple[Identity, Verdict | None]:
        """Who asks, and whether not too often. Only what has to wait goes to a thread."""
        if self._authenticator is None:
            return Identity(Caller()), None
        route = scope["method"], route_path(scope)
        decision = decide(*route)
        opened = decision is not None and decision[1] is Need.OPEN
        sent = "authorization" in Headers(scope=scope) or scope.get("session")
        if opened and not sent and route != _LOGIN:
            return Identity(None), None
        return await run_in_threadpool(self._admit, scope, opened)

    def _admit(self, scope: Scope, opened: bool) -> tuple[Identity, Verdict | None]:
        assert self._authenticator is not None
        identity = self._authenticator.identify(Headers(scope=scope), scope.get("session", {}))
        if self._rates is None:
            return identity, None
        if identity.caller is not None and identity.caller.key_id is not None and not opened:
            kind: Kind = "reads" if scope["method"] in _SAFE else "writes"
            return identity, self._rates.hit(kind, identity.caller.key_id)
        if opened and (scope["method"], route_path(scope)) != _LOGIN:
            return identity, None
        return identity, self._rates.hit("failures", _address(scope) or "unknown")

    def _refusal(self, scope: Scope, identity: Identity) -> Response | None:
        """The answer to who may not pass; None for who may."""
        path, method = route_path(scope), scope["method"]
        decision = decide(method, path)
        if decision is not None and decision[1] is Need.OPEN:
            return self._cross_site(scope, identity)
        caller = identity.caller
        if caller is None:
            return self._ask_for_key(scope, identity)
        if decision is None:
            if not self._serves(scope):
                return None  # the router says 404 or 405
            log.error("no decision on %s %s: add it to api/policy.py", method, path)
            return self._forbidden(scope, "Nobody may: no decision is made on this route.")
        template, need = decision
        if not caller.may(need):
            return self._forbidden(
                scope,
                f"{method} {template} needs the scope {need.value}; this key has: "
                f"{', '.join(sorted(caller.scopes)) or 'none'}.",
            )
        return self._cross_site(scope, identity)

    def _cross_site(self, scope: Scope, identity: Identity) -> Response | None:
        """Refuse what a page of another site may have had the browser send.

        A browser says where a request that changes something comes from (``Origin``, or
        ``Sec-Fetch-Site``). What is known by its cookie and does not say so is refused.
        """
        if scope["method"] in _SAFE or not identity.by_cookie:
            return None
        if is_own_page(scope, self._settings):
            return None
        return self._forbidden(scope, "A page of this service must ask for that.")

    def _ask_for_key(self, scope: Scope, identity: Identity) -> Response:
        path = route_path(scope)
        if scope["method"] == "GET" and _is_page(scope, path):
            query = scope.get("query_string", b"").decode("latin-1")
            back = quote(path + (f"?{query}" if query else ""), safe="")
            return RedirectResponse(f"{scope.get('root_path', '')}/login?next={back}", 303)
        detail = identity.wrong or "Send a key: Authorization: Bearer mlhf_…"
        return response(document(401, "unauthorized", "Unauthorized", detail), _CHALLENGE)

    def _forbidden(self, scope: Scope, detail: str) -> Response:
        if _is_page(scope, route_path(scope)):
            return self._error_page(scope, 403, "Forbidden", detail)
        return response(document(403, "forbidden", "Forbidden", detail))

    def _noted(self, scope: Scope, caller: Caller | None, send: Send) -> Send:
        """Note the request before its answer is sent, where it is one to be noted."""
        journal = self._journal
        assert journal is not None

        async def noted(message: Message) -> None:
            if message["type"] == "http.response.start":
                status = message["status"]
                if journal.wants(scope["method"], status):
                    route = decide(scope["method"], route_path(scope))
                    await run_in_threadpool(
                        journal.write,
                        caller=caller,
                        method=scope["method"],
                        path=route_path(scope),
                        route=route[0] if route else None,
                        status=status,
                        address=_address(scope),
                        request_id=scope.get("state", {}).get("request_id"),
                    )
            await send(message)

        return noted


def _too_many(verdict: Verdict) -> Response:
    detail = (
        f"More than {verdict.limit:,} requests in {verdict.window} seconds. Ask again in "
        f"{verdict.seconds} s."
    )
    body = document(429, "too-many-requests", "Too many requests", detail)
    return response(body, verdict.headers())


def _with_headers(send: Send, verdict: Verdict) -> Send:
    async def told(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in verdict.headers().items():
                headers[name] = value
        await send(message)

    return told


def _address(scope: Scope) -> str | None:
    client = scope.get("client")
    return str(client[0])[:64] if client else None


def _is_page(scope: Scope, path: str) -> bool:
    """Whether a person looks at the answer."""
    if path.startswith(("/v1/", "/static/")) or path in ("/metrics", "/openapi.json"):
        return False
    return "text/html" in Headers(scope=scope).get("accept", "")
