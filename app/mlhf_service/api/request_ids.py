"""The id of a request: in its answer, in every line of the log that it causes, and one line of it.

A client or a proxy may give the id (``X-Request-Id``); then both logs can be put together.
"""

import logging
import re
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhf_service import logs
from mlhf_service.api.policy import decide
from mlhf_service.kit.ids import new_id

log = logging.getLogger("mlhf_service.requests")

HEADER = "X-Request-Id"
_GIVEN = re.compile(r"[A-Za-z0-9._\-]{1,64}", re.ASCII)
_PROBES = {"/healthz", "/readyz", "/metrics"}  # asked every few seconds: told when they fail


class RequestIds:
    """Outermost: what any other middleware or endpoint logs has the id."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _GIVEN.fullmatch(given) else new_id("req")
        began, status = time.perf_counter(), 0

        async def with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)[HEADER] = request_id
            await send(message)

        scope.setdefault("state", {})["request_id"] = request_id
        with logs.bound(request_id=request_id):
            try:
                await self.app(scope, receive, with_id)
            finally:
                self._tell(scope, status, time.perf_counter() - began)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        """One line a request. Not its query, in which a client may have put a secret."""
        if scope["path"] in _PROBES and status < 400:
            return
        decision = decide(scope["method"], scope["path"])
        ids = scope.get("path_params", {}).items()
        caller = scope.get("state", {}).get("caller")
        facts = {name: value for name, value in ids if name.endswith("_id")}
        facts |= {  # these come last: a path may have a key_id too, of another key
            "method": scope["method"],
            "route": decision[0] if decision else None,
            "status": status,
            "milliseconds": round(1000 * seconds),
            "key_id": getattr(caller, "key_id", None),
        }
        with logs.bound(**facts):
            log.info("%s %s", scope["method"], ascii(scope["path"])[1:-1])
