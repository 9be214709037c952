"""Applied to every request: body limits and safe headers."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from mlhf_service.api.hosts import route_path
from mlhf_service.kit.problems import TooLarge, document, response

_CSP = (
    "default-src 'self'; img-src 'self' data:; style-src 'self'; script-src 'self'; "
    "object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
)
_UPLOADS = re.compile(r"/v1/(datasets|networks|imports|models/[^/]+/predict-file)")


class BodyLimit:
    """Refuse a body over ``max_bytes`` with 413, before it is held in memory.

    Uploads of data sets and networks have a limit of their own, checked while they are streamed.
    """

    def __init__(self, app: ASGIApp, max_bytes: int, max_upload_bytes: int) -> None:
        self.app = app
        self.max_bytes = max_bytes
        self.max_upload_bytes = max_upload_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        limit = self.max_upload_bytes if _UPLOADS.fullmatch(route_path(scope)) else self.max_bytes
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
                headers.setdefault("Cross-Origin-Resource-Policy", "same-origin")
                if route_path(scope).startswith("/v1/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self.app(scope, receive, with_headers)
