"""Send one request to an address that a user gave, without trusting it."""

import ssl
import time
from collections.abc import Collection, Iterable, Mapping
from functools import lru_cache
from typing import Any

import httpcore
import httpx

import mlhf
from mlhf_service.webhooks.addresses import ForbiddenAddressError, resolve

_CONNECT_SECONDS, _READ_SECONDS, _TOTAL_SECONDS = 5.0, 10.0, 15.0
_MAX_RESPONSE_BYTES = 64 * 1024


class DeliveryError(Exception):
    """Nothing was answered; the message says why, for the webhook's owner."""


class _PublicOnly(httpcore.SyncBackend):
    """Connects to addresses that were checked, and to nothing else.

    The name stays that of the request, so that certificate, SNI and Host are of the name.
    """

    def __init__(self, private_hosts: Collection[str]) -> None:
        super().__init__()
        self._private_hosts = private_hosts

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        try:
            addresses = resolve(host, port, self._private_hosts)
        except OSError as error:
            raise httpcore.ConnectError(f"{host} does not resolve") from error
        failed: Exception | None = None
        for address in addresses:
            try:
                return super().connect_tcp(
                    address, port, timeout, local_address, socket_options or ()
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failed = error
        raise failed or httpcore.ConnectError(f"{host} has no address")

    def connect_unix_socket(self, *_: Any, **__: Any) -> httpcore.NetworkStream:
        raise httpcore.ConnectError("no unix sockets")


@lru_cache
def _trust() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def post(
    url: str, body: str, headers: Mapping[str, str], private_hosts: Collection[str] = ()
) -> int:
    """POST a body; returns the status of the answer, of which nothing else is kept.

    Redirects are not followed, no proxy is used, and neither an answer without end nor one
    that comes byte by byte holds us. Raises DeliveryError.
    """
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise DeliveryError(f"its URL cannot be used: {error}") from None
    target = httpcore.URL(
        scheme=parsed.raw_scheme,
        host=parsed.raw_host,
        port=parsed.port,
        target=parsed.raw_path,
    )
    sent = {
        "host": parsed.netloc.decode(),
        "content-type": "application/json",
        "user-agent": f"mlhf/{mlhf.__version__}",
        "content-length": str(len(body.encode())),
        **headers,
    }
    timeout = {
        "connect": _CONNECT_SECONDS,
        "read": _READ_SECONDS,
        "write": _READ_SECONDS,
        "pool": _CONNECT_SECONDS,
    }
    deadline = time.monotonic() + _TOTAL_SECONDS
    pool = httpcore.ConnectionPool(
        ssl_context=_trust(), network_backend=_PublicOnly(private_hosts), retries=0
    )
    try:
        with (
            pool,
            pool.stream(
                "POST",
                target,
                headers=[(k.encode(), v.encode()) for k, v in sent.items()],
                content=body.encode(),
                extensions={"timeout": timeout},
            ) as response,
        ):
            received = 0
            for chunk in response.iter_stream():
                received += len(chunk)
                if received > _MAX_RESPONSE_BYTES or time.monotonic() > deadline:
                    break
            return int(response.status)
    except ForbiddenAddressError as error:
        raise DeliveryError(str(error)) from None
    except httpcore.TimeoutException as error:
        raise DeliveryError(f"it did not answer in time ({type(error).__name__})") from None
    except (httpcore.NetworkError, httpcore.ProtocolError, ssl.SSLError) as error:
        raise DeliveryError(f"it cannot be reached: {error or type(error).__name__}") from None
