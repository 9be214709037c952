"""The embedded broker: kombu's folder transport, with messages that appear whole.

Kombu writes a message in place, so a consumer on another process can take one that is
still empty and fail to read it. Here a message is renamed into the folder instead.
"""

import os
from pathlib import Path
from time import monotonic_ns
from typing import Any, ClassVar
from uuid import uuid4

from kombu.transport import filesystem
from kombu.utils.json import dumps

_PATIENCE = 0.3  # seconds


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **kwargs: Any) -> None:  # type: ignore[override]
        folder = Path(self.data_folder_out)
        name = f"{monotonic_ns() // 1_000_000}_{uuid4()}"
        temporary = folder / f"{name}.tmp"
        text: str = dumps(payload)  # type: ignore[no-untyped-call]
        temporary.write_text(text, encoding="utf-8")
        os.replace(temporary, folder / f"{name}.{queue}.msg")


class Transport(filesystem.Transport):
    Channel = Channel
    # A folder has no host: with kombu's default it warns that none was given.
    default_connection_params: ClassVar[dict[str, Any]] = {}

    def drain_events(self, connection: Any, timeout: float | None = None, **kwargs: Any) -> Any:
        # Celery looks whether it should stop only between these: look more often.
        patience = min(timeout or _PATIENCE, _PATIENCE)
        return super().drain_events(connection, patience)  # type: ignore[no-untyped-call]
