"""Requests and answers without a network: what the client and the asynchronous client share.

An operation is a generator. It yields a ``Request`` and is sent the response, or it yields a
``Pause``; a client of either kind carries that out.
"""

import os
import random
from collections.abc import Generator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

import httpx

from mlhf_service.client.errors import Json, ServiceError, WaitTimeoutError, refusal

T = TypeVar("T")
DEFAULT_URL = "http://127.0.0.1:8000"
RETRIED = {429, 502, 503, 504}
_IN_FLIGHT = 409  # of an Idempotency-Key
_LONGEST_PAUSE = 30.0


@dataclass(frozen=True)
class Request:
    """One request; ``options`` are those of ``httpx.Client.request``."""

    method: str
    path: str
    options: Json = field(default_factory=dict)


@dataclass(frozen=True)
class Pause:
    """Wait so long."""

    seconds: float


Operation = Generator[Request | Pause, Any, T]


@dataclass(frozen=True)
class Exchange:
    """How requests to one service are made.

    Attributes:
        url: The service's address.
        retries: How often a request that may be repeated is sent again.
    """

    url: str
    retries: int

    def request(self, method: str, path: str, **options: Any) -> Operation[httpx.Response]:
        """Send a request, and again where that does no harm. Raises ServiceError."""
        headers = options.get("headers") or {}
        with_key = "Idempotency-Key" in headers
        repeatable = path.startswith("/v1/") and (method == "GET" or with_key)
        left = self.retries if repeatable else 0
        pause = 0.2
        while True:
            try:
                response: httpx.Response = yield Request(method, path, options)
            except httpx.HTTPError as error:
                if not left:
                    raise self.no_answer(method, path, error) from None
                seconds = pause
            else:
                if not response.is_error:
                    return response
                retry_after = _seconds(response.headers.get("Retry-After"))
                again = response.status_code in RETRIED or (
                    with_key and response.status_code == _IN_FLIGHT and retry_after is not None
                )
                if not left or not again:
                    raise refusal(response)
                seconds = max(pause, retry_after or 0.0)
            left -= 1
            pause *= 2
            yield Pause(min(_LONGEST_PAUSE, seconds) * random.uniform(1.0, 1.25))

    def json(self, method: str, path: str, **options: Any) -> Operation[Any]:
        """Send a request, and return its answer as JSON data."""
        response = yield from self.request(method, path, **options)
        try:
            return response.json()
        except ValueError:
            raise ServiceError(
                f"{self.url} answers, but not as MLHF does. Is it the address of another server?"
            ) from None

    def no_answer(self, method: str, path: str, error: httpx.HTTPError) -> ServiceError:
        """The error of a request that was not answered; it names what was waited for."""
        if isinstance(error, httpx.TimeoutException):
            limit = error.request.extensions.get("timeout", {}).get("read")
            within = f" within {limit:g} s" if limit else ""
            return WaitTimeoutError(
                f"no answer from {self.url} to {method} {path}{within}. It may be busy: give the "
                "client a longer timeout"
            )
        return ServiceError(
            f"no answer from {self.url} ({error}). Is it running? Start it with: mlhf serve"
        )


def given(params: Json) -> Json:
    """The parameters that are not None, as a query takes them."""
    return {
        name: str(value).lower() if isinstance(value, bool) else value
        for name, value in params.items()
        if value is not None
    }


def part(value: str) -> str:
    """A part of a path, quoted."""
    return quote(value, safe="")


_RESOURCES = {
    "job": "jobs",
    "run": "runs",
    "ds": "datasets",
    "mc": "meta-checkpoints",
    "net": "networks",
    "prj": "projects",
    "wh": "webhooks",
    "ret": "retention",
}


def address(identity: str) -> str:
    """The path of what an id names. Raises ServiceError for one of no kind that we know."""
    resource = _RESOURCES.get(identity.partition("_")[0])
    if resource is None:
        known = ", ".join(f"{prefix}_…" for prefix in _RESOURCES)
        raise ServiceError(f"{identity} is no id of ours: they begin as {known}")
    return f"/v1/{resource}/{part(identity)}"


def address_of_service(url: str | None) -> str:
    """The address that was given, else ``MLHF_URL``, else that of a service on this machine."""
    return (url or os.environ.get("MLHF_URL") or DEFAULT_URL).rstrip("/")


def key_headers(key: str | None) -> dict[str, str]:
    """The header that shows a key: one given, in a file (``@FILE``), or ``MLHF_KEY``."""
    key = key or os.environ.get("MLHF_KEY", "")
    if key.startswith("@"):
        try:
            key = Path(key[1:]).read_text(encoding="utf-8")
        except (OSError, ValueError) as error:
            raise ServiceError(f"cannot read a key from {key[1:]}: {error}") from None
    key = key.strip()
    if not (key.isascii() and key.isprintable() and " " not in key):
        raise ServiceError("the key is not one of MLHF's: it begins with mlhf_")
    return {"Authorization": f"Bearer {key}"} if key else {}


def _seconds(text: str | None) -> float | None:
    try:
        return None if text is None else float(text)
    except ValueError:  # a date
        return None
