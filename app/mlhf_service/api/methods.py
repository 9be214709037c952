"""Methods that every route has: OPTIONS says what is allowed, HEAD is GET without its body."""

from starlette.datastructures import MutableHeaders
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhf_service.api.hosts import route_path
from mlhf_service.api.policy import methods_of


class Methods:
    """Answers OPTIONS and HEAD, and makes the ``Allow`` of a 405 complete."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        method, known = scope["method"], methods_of(route_path(scope))
        if method == "OPTIONS" and known:
            await Response(status_code=204, headers={"Allow": _allow(known)})(scope, receive, send)
        elif method == "HEAD" and "GET" in known and "HEAD" not in known:
            await self._head(scope, receive, send)
        else:
            await self._complete(scope, receive, send, known)

    async def _complete(
        self, scope: Scope, receive: Receive, send: Send, known: frozenset[str]
    ) -> None:
        async def with_all_methods(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] == 405 and known:
                MutableHeaders(scope=message)["Allow"] = _allow(known)
            await send(message)

        await self.app(scope, receive, with_all_methods)

    async def _head(self, scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def without_body(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                await send(message)
                await send({"type": "http.response.body", "body": b""})

        async def gone_once_answered() -> Message:
            # What streams without end stops when its client is gone.
            return {"type": "http.disconnect"} if started else await receive()

        await self.app({**scope, "method": "GET"}, gone_once_answered, without_body)


def _allow(known: frozenset[str]) -> str:
    more = {"OPTIONS", "HEAD"} if "GET" in known else {"OPTIONS"}
    return ", ".join(sorted(known | more))
