"""The folder in which the processes of one supervisor share their measures."""

import os
import shutil
from collections.abc import MutableMapping
from contextlib import suppress
from pathlib import Path

FOLDER = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it when it is imported


def share(temporary: Path, environment: MutableMapping[str, str] = os.environ) -> Path:
    """Make the folder of this process and its children; remove those of processes that are gone.

    Call it before ``measures`` is imported.
    """
    for other in temporary.glob("measures-*"):
        if not _is_alive(other.name.rpartition("-")[2]):
            shutil.rmtree(other, ignore_errors=True)
    folder = temporary / f"measures-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    environment[FOLDER] = str(folder)
    return folder


def _is_alive(pid: str) -> bool:
    with suppress(ValueError, ProcessLookupError):
        os.kill(int(pid), 0)
        return True
    return False
