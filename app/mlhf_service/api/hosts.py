"""By which names the service is called, and from which pages."""

import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from mlhf_service.access_settings import listed
from mlhf_service.kit.problems import document, response
from mlhf_service.settings import LOOPBACK, Settings

_HOST = re.compile(r"([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(?::([0-9]{1,5}))?")
_PROBES = ("/healthz", "/readyz")  # asked by address, and they tell nothing
_LARGEST_PORT = 65_535


class HostGuard:
    """Refuse other names than the service's own, and pages of other origins.

    A page on the web must not drive the service through a browser (DNS rebinding, cross-site
    requests). Without keys only this machine's names are the service's; with keys, those that
    MLHF_ALLOWED_HOSTS lists, or any where it lists none.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._settings = settings
        allowed = [name.lower() for name in listed(settings.allowed_hosts)]
        self._any = "*" in allowed or (settings.auth != "off" and not allowed)
        self._names = {*allowed, *LOOPBACK, settings.host.lower()}
        self._suffixes = tuple(name[1:] for name in allowed if name.startswith("*."))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and (refusal := self._refusal(scope)) is not None:
            await response(document(403, "forbidden", "Forbidden", refusal))(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _refusal(self, scope: Scope) -> str | None:
        if route_path(scope) in _PROBES:
            return None
        host = host_of(scope)
        if host is None:
            return "The Host header is not a host with an optional port."
        if not self._knows(host):
            return (
                f"The service is not called {host}. Its names are set by MLHF_ALLOWED_HOSTS."
                if self._settings.auth != "off"
                else "Without keys the service answers only this machine's own pages."
            )
        origin = Headers(scope=scope).get("origin")
        if origin is not None and not is_own_origin(origin, scope, self._settings):
            return (
                "Pages of other origins may not ask. Those that may are set by "
                "MLHF_ALLOWED_ORIGINS."
            )
        return None

    def _knows(self, host: str) -> bool:
        return self._any or host in self._names or host.endswith(self._suffixes or ("\0",))


def host_of(scope: Scope) -> str | None:
    """The host of the Host header, without port and brackets; None where it is malformed."""
    match = _HOST.fullmatch(Headers(scope=scope).get("host", ""))
    if match is None or int(match[2] or 0) > _LARGEST_PORT:
        return None
    return match[1].strip("[]").lower()


def is_own_origin(origin: str, scope: Scope, settings: Settings) -> bool:
    """Whether a page of ``origin`` is the service's own, or one that may send requests."""
    if origin in listed(settings.allowed_origins):
        return True
    try:
        parts = urlsplit(origin)
    except ValueError:
        return False
    if parts.scheme not in ("http", "https") or not parts.netloc:
        return False
    return parts.netloc.lower() == Headers(scope=scope).get("host", "").lower()


def is_own_page(scope: Scope, settings: Settings) -> bool:
    """Whether the browser says that a page of the service sent this. Silence is no yes."""
    headers = Headers(scope=scope)
    origin = headers.get("origin")
    if origin is not None:
        return is_own_origin(origin, scope, settings)
    return headers.get("sec-fetch-site") == "same-origin"


def route_path(scope: Scope) -> str:
    """The path below that at which a proxy serves us."""
    path, root = str(scope["path"]), str(scope.get("root_path", ""))
    if root and (path == root or path.startswith(f"{root}/")):
        return path[len(root) :] or "/"
    return path
