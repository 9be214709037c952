"""Log-in by OpenID Connect: the code flow with PKCE, state and nonce (Authlib), and what the
claims of a person mean here.
"""

import hashlib
from collections.abc import Mapping
from importlib import import_module
from typing import Any

import httpx
from authlib.common.errors import AuthlibBaseError
from authlib.integrations.starlette_client import OAuth
from joserfc.errors import JoseError
from starlette.requests import Request
from starlette.responses import Response

from mlhf_service.access_settings import listed, tenant_name
from mlhf_service.context import ADMIN, READ, WRITE
from mlhf_service.kit.problems import Problem
from mlhf_service.settings import Settings

_NAME = "oidc"
_MOST_SHOWN = 100


def _unreachable() -> tuple[type[Exception], ...]:
    """What is raised where a request gets no answer: Authlib sends by httpx2 where that is
    installed (other packages bring it), and by httpx where it is not."""
    try:
        return httpx.HTTPError, import_module("httpx2").HTTPError
    except ImportError:
        return (httpx.HTTPError,)


_INVALID = (*_unreachable(), AuthlibBaseError, ValueError, KeyError)


class LoginFailed(Problem):
    status, slug, title = 403, "login-failed", "You could not be logged in"


class Provider:
    """The one identity provider of a deployment."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._issuer = settings.oidc_issuer.rstrip("/")
        oauth = OAuth()
        oauth.register(
            _NAME,
            client_id=settings.oidc_client_id,
            client_secret=settings.oidc_client_secret.get_secret_value() or None,
            server_metadata_url=f"{self._issuer}/.well-known/openid-configuration",
            client_kwargs={
                "scope": " ".join(["openid", *listed(settings.oidc_extra_scopes)]),
                "code_challenge_method": "S256",
                "timeout": 10.0,
            },
        )
        self._client = oauth.create_client(_NAME)

    async def send_there(self, request: Request, back: str) -> Response:
        """Send the browser to the provider. Raises LoginFailed where that does not answer."""
        try:
            answer: Response = await self._client.authorize_redirect(request, back)
        except _INVALID:
            raise LoginFailed("The identity provider does not answer. Try again.") from None
        return answer

    async def person(self, request: Request) -> dict[str, Any]:
        """What a session holds of who came back from the provider. Raises LoginFailed."""
        try:
            token = await self._client.authorize_access_token(request)
        except (*_INVALID, JoseError) as error:
            reason = getattr(error, "error", None) or type(error).__name__
            raise LoginFailed(f"The identity provider's answer is not valid ({reason}).") from None
        claims = token.get("userinfo")
        if not isinstance(claims, Mapping):
            raise LoginFailed("The identity provider sent no ID token.")
        if str(claims.get("iss", "")).rstrip("/") != self._issuer:
            raise LoginFailed("The ID token is another issuer's.")
        return person_of(claims, self._settings)


def person_of(claims: Mapping[str, Any], settings: Settings) -> dict[str, Any]:
    """The tenant and the scopes that verified claims stand for. Raises LoginFailed."""
    groups = set(_items(_claim(claims, settings.oidc_groups_claim)))
    of_scope = (
        (ADMIN, settings.oidc_admin_groups),
        (WRITE, settings.oidc_write_groups),
        (READ, settings.oidc_read_groups),
    )
    scopes = [
        scope for scope, names in of_scope if "*" in listed(names) or groups & set(listed(names))
    ]
    if not scopes:
        raise LoginFailed("Your account is in no group that may use this service.")
    subject = f"{claims['iss']} {claims['sub']}"
    name = claims.get("email") or claims.get("preferred_username") or claims.get("name")
    return {
        # As an id of a key: what a person makes is counted on it.
        "id": "oidc_" + hashlib.sha256(subject.encode()).hexdigest()[:32],
        "name": str(name or claims["sub"])[:_MOST_SHOWN],
        "tenant": _tenant(claims, settings),
        "scopes": scopes,
    }


def _tenant(claims: Mapping[str, Any], settings: Settings) -> str:
    if not settings.oidc_tenant_claim:
        return settings.oidc_tenant
    found = _items(_claim(claims, settings.oidc_tenant_claim))
    try:
        (only,) = found
        return tenant_name(only)
    except ValueError:
        raise LoginFailed(
            f"The claim {settings.oidc_tenant_claim} of your account names no tenant."
        ) from None


def _claim(claims: Mapping[str, Any], path: str) -> Any:
    """A claim by its name, or by a path into nested ones: ``realm_access.roles``."""
    if path in claims:
        return claims[path]
    value: Any = claims
    for part in path.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


def _items(value: Any) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list) else []
