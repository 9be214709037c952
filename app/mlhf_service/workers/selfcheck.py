"""What a worker needs to train: each check returns what is wrong, in a sentence, or None."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from uuid import uuid4

from mlhf_service.data_folder import free_bytes
from mlhf_service.settings import Settings
from mlhf_service.storage.factory import open_storage
from mlhf_service.storage.folder import FolderStorage
from mlhf_service.storage.protocol import Storage

Check = Callable[[], str | None]

_DEVICE_SECONDS = 120.0
_PROBE_BYTES = b"mlhf" * 1024


def checks(settings: Settings) -> list[Check]:
    """Whether what a run writes can be written: its spool, and the store of artifacts."""
    spool = partial(check_folder, "spool", settings.spool_dir, settings.min_free_bytes)
    storage = open_storage(settings)
    if isinstance(storage, FolderStorage):
        return [spool, partial(check_folder, "artifacts", storage.root, settings.min_free_bytes)]
    return [spool, partial(check_store, storage)]


def check_store(storage: Storage) -> str | None:
    """Why a store elsewhere cannot be used, in a sentence; None where it can."""
    try:
        storage.check()
    except OSError as error:
        return str(error)
    return None


def check_folder(name: str, folder: Path, min_free_bytes: int) -> str | None:
    """What keeps a folder from being written to, in a sentence; None where nothing does."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".probe-{uuid4().hex}"
        try:
            with probe.open("wb") as file:
                file.write(_PROBE_BYTES)
        finally:
            probe.unlink(missing_ok=True)
        free = free_bytes(folder)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return f"The disk of its {name} folder is full. Make room there."
        reason = os.strerror(error.errno) if error.errno else str(error)
        return f"Its {name} folder cannot be written to: {reason}."
    if free < min_free_bytes:
        return (
            f"The disk of its {name} folder is almost full: {free / 2**20:.0f} MiB are free, less "
            f"than the {min_free_bytes / 2**20:.0f} MiB of MLHF_MIN_FREE_BYTES. Make room there."
        )
    return None


class DeviceCheck:
    """Whether torch can be imported and the queue's device computes. Takes seconds.

    Args:
        queue: ``cpu`` or ``gpu``.
        tell: Given what the device is, where it answers.
    """

    def __init__(self, queue: str, tell: Callable[[dict[str, Any]], None]) -> None:
        self._device = "cuda" if queue == "gpu" else "cpu"
        self._tell = tell

    def __call__(self) -> str | None:
        """Return what is wrong, or None."""
        try:
            done = subprocess.run(
                [sys.executable, "-m", "mlhf.selfcheck", self._device],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=_DEVICE_SECONDS,
                check=False,
            )
            answer = json.loads(done.stdout)
        except subprocess.TimeoutExpired:
            return f"Its device ({self._device}) did not answer within {_DEVICE_SECONDS:.0f} s."
        except OSError as error:
            return f"No process can be started: {error.strerror}."
        except ValueError:
            return f"The check of its device ended with code {done.returncode}."
        if "error" in answer:
            return str(answer["error"])
        self._tell(answer)
        return None
