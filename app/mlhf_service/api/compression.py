"""Answers are compressed where the client takes gzip."""

from starlette.datastructures import Headers
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp, Receive, Scope, Send

from mlhf_service.api.hosts import route_path

_SMALLEST, _LEVEL = 1024, 5
# Files, which are of bytes that do not shrink and of which parts can be asked for.
_AS_THEY_ARE = ("/artifacts/", "/file")


class Compressed:
    """Gzip for all but files, parts of files and streams of events."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.compressed = GZipMiddleware(app, minimum_size=_SMALLEST, compresslevel=_LEVEL)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        plain = scope["type"] != "http" or "range" in Headers(scope=scope)
        if plain or any(part in route_path(scope) for part in _AS_THEY_ARE):
            await self.app(scope, receive, send)
        else:
            await self.compressed(scope, receive, send)
