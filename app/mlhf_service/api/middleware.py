"""Applied to every request: body limits, host and origin checks, safe headers."""

from collections.abc import Iterable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhf_service.kit.problems import TooLarge, document, response

_CSP = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_UPLOADS = "/v1/datasets"


class BodyLimit:
    """Refuse a body over ``max_bytes`` with 413, before it is held in memory.

    Uploads of data sets have a limit of their own, checked while they are streamed.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_upload_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.max_upload_bytes if scope["path"] == _UPLOADS else self.max_bytes
        declared = Headers(scope=scope).get("content-length", "0")
        if not declared.isdigit() or int(declared) > limit:
            await _refuse(limit)(scope, receive, send)
            return
        seen = 0
        started = False

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise ClientDisconnect  # ends the reading, whoever reads
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            if seen <= limit:  # else the application answers to half a body
                started = True
                await send(message)

        try:
            await self.app(scope, counted, watched)
        except ClientDisconnect:
            if seen <= limit:
                raise
        if seen > limit and not started:
            await _refuse(limit)(scope, receive, send)


def _refuse(limit: int) -> ASGIApp:
    detail = f"The body is larger than the {limit:,} bytes accepted here."
    return response(
        document(TooLarge.status, TooLarge.slug, TooLarge.title, detail), {"Connection": "close"}
    )


class SafeHeaders:
    """Headers that keep a browser from being tricked by what users upload."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.setdefault("X-Content-Type-Options", "nosniff")
                headers.setdefault("Content-Security-Policy", _CSP)
                headers.setdefault("Referrer-Policy", "same-origin")
                if scope["path"].startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers)


class LocalOnly:
    """Without keys, only this machine is served: other hosts and origins are refused.

    A page on the web must not drive the service through a browser here (DNS rebinding,
    cross-site requests).
    """

    def __init__(self, app: ASGIApp, hosts: Iterable[str]) -> None:
        self.app = app
        self.hosts = [f"[{host}]" if ":" in host else host for host in hosts]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = Headers(scope=scope)
            origin = headers.get("origin")
            foreign = origin is not None and urlsplit(origin).netloc != headers.get("host")
            if foreign or not await self._is_trusted(scope):
                detail = "Without keys the service answers only this machine's own pages."
                body = document(403, "forbidden", "Forbidden", detail)
                await response(body)(scope, receive, send)
                return
        await self.app(scope, receive, send)

    async def _is_trusted(self, scope: Scope) -> bool:
        """Ask Starlette's check of the host, whose answer in plain text is not sent."""
        trusted = False

        async def accept(scope: Scope, receive: Receive, send: Send) -> None:
            nonlocal trusted
            trusted = True

        async def no_body() -> Message:
            return {"type": "http.request"}

        async def drop(message: Message) -> None:
            pass

        check = TrustedHostMiddleware(accept, self.hosts, www_redirect=False)
        await check(scope, no_body, drop)
        return trusted
