"""How far the check of an upload is, for whoever waits for the answer to it.

It is kept in a file, so that any process of the API can tell. Whoever of the tenant knows the id
that the client chose for its upload can ask.
"""

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Annotated, Any

from pydantic import StringConstraints

from mlhf.core import atomic_files
from mlhf_service.datasets.schemas import Stage, UploadProgress
from mlhf_service.settings import Settings

ProgressId = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9-]{16,64}$")]

_FILE = "progress.json"
_SECONDS = 0.2  # between two writes


class Reporter:
    """Writes how far one upload is, a few times a second; nothing where nobody asked for it."""

    def __init__(self, folder: Path | None, received: int) -> None:
        self._folder = folder
        self._received = received
        self._stage: Stage = "unpacking"
        self._written = 0.0

    def enter(self, stage: Stage) -> None:
        """Say that a stage begins."""
        self._stage, self._written = stage, 0.0
        self(0, 0)

    def __call__(self, done: int, total: int) -> None:
        """Say how many samples of how many are done."""
        if self._folder is None or time.monotonic() - self._written < _SECONDS:
            return
        self._written = time.monotonic()
        state = {"received": self._received, "stage": self._stage, "done": done, "total": total}
        atomic_files.write(self._folder / _FILE, json.dumps(state).encode())


@contextmanager
def reporting(
    settings: Settings, tenant: str, progress_id: str | None, received: int
) -> Iterator[Reporter]:
    """A reporter for an upload of ``received`` bytes; what it wrote is gone at the end."""
    if progress_id is None:
        yield Reporter(None, received)
        return
    folder = _folder(settings, tenant, progress_id)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield Reporter(folder, received)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def find(settings: Settings, tenant: str, progress_id: str) -> UploadProgress:
    """How far an upload is: ``waiting`` before all has arrived, and once it is answered."""
    with suppress(OSError, ValueError):
        state: dict[str, Any] = json.loads(
            (_folder(settings, tenant, progress_id) / _FILE).read_bytes()
        )
        return UploadProgress(**state)
    return UploadProgress(received=0, stage="waiting", done=0, total=0)


def _folder(settings: Settings, tenant: str, progress_id: str) -> Path:
    # Among the folders of uploads, so that what a killed process leaves is removed with them.
    return settings.root / "uploads" / f"progress-{tenant}.{progress_id}"
