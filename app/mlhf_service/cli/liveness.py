"""Whether the API or the workers of this container live: what its health check asks.

It asks neither database nor broker: that they are away is no reason to start anything anew.
"""

import http.client
import time
from typing import Literal

from mlhf_service.errors import StartError
from mlhf_service.settings import LOOPBACK, Settings

_ANSWER_SECONDS = 5.0
_SILENT_SECONDS = 90.0  # a heartbeat waits for a database that is away, but not that long


def require(part: Literal["api", "worker"], settings: Settings) -> None:
    """Raise StartError with the reason where it does not live."""
    if part == "api":
        _require_answer(settings)
        return
    try:
        silent = time.time() - settings.alive_file.stat().st_mtime
    except FileNotFoundError:
        raise StartError(f"No worker has begun yet in {settings.root}.") from None
    if silent > max(_SILENT_SECONDS, 4 * settings.heartbeat_seconds):
        raise StartError(f"The workers have been silent for {silent:.0f} s.")


def _require_answer(settings: Settings) -> None:
    host = settings.host if settings.host in LOOPBACK else "127.0.0.1"
    connection = http.client.HTTPConnection(host, settings.port, timeout=_ANSWER_SECONDS)
    try:
        connection.request("GET", "/healthz")
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise StartError(f"The API does not answer at {host}:{settings.port}: {error}") from None
    finally:
        connection.close()
    if status != http.HTTPStatus.OK:
        raise StartError(f"The API answers {status} at /healthz.")
