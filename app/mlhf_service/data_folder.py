"""The data folder: made with all it needs, or refused in a sentence."""

import os
import shutil
from pathlib import Path

from mlhf_service.errors import StartError
from mlhf_service.settings import Settings

_ADVICE = "Choose another --data-dir, or change its permissions."


def prepare(settings: Settings) -> None:
    """Make the data folder and the folders that every process writes to.

    Raises StartError where one cannot be made or written to.
    """
    make_folder(settings.root)
    for folder in (settings.logs_dir, settings.root / "tmp", settings.spool_dir):
        make_folder(folder)


def make_folder(path: Path) -> None:
    """Make a folder that can be written to. Raises StartError where that is not possible."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise StartError(f"{path} is not a folder. {_ADVICE}") from None
    except OSError as error:
        raise StartError(f"Cannot make the folder {path}: {error.strerror}. {_ADVICE}") from None
    if not os.access(path, os.W_OK | os.X_OK):
        raise StartError(f"Cannot write to the folder {path}. {_ADVICE}")


def clear_broker(settings: Settings) -> None:
    """Delete the messages of an earlier service; other files that are there stay."""
    for message in settings.broker_dir.glob("*.msg"):
        message.unlink(missing_ok=True)


def clear_spool(settings: Settings) -> None:
    """Delete the folders of an earlier service's trainers and workers; other files stay."""
    killed = [*settings.spool_dir.glob("run_*"), *(settings.root / "tmp").glob("pymp-*")]
    for folder in killed:
        shutil.rmtree(folder, ignore_errors=True)


def free_bytes(folder: Path) -> int:
    """The room left for files in a folder, or where it would be made."""
    while True:
        try:
            return shutil.disk_usage(folder).free
        except (FileNotFoundError, NotADirectoryError):
            if folder == folder.parent:
                raise
            folder = folder.parent


def full_disk(settings: Settings) -> str | None:
    """What to do about a disk of this deployment that is full; None where there is room.

    Raises OSError where a disk cannot be asked.
    """
    folders = {"data folder": settings.data_dir.expanduser()}
    if settings.artifacts_folder is not None:
        folders["artifacts"] = settings.artifacts_folder
    for name, folder in folders.items():
        free = free_bytes(folder)
        if free < settings.min_free_bytes:
            return (
                f"The disk of the {name} is full: {free / 2**20:.0f} MiB are free, and "
                f"{settings.min_free_bytes / 2**20:.0f} MiB are kept free (MLHF_MIN_FREE_BYTES). "
                "Make room on it; what is queued waits and goes on by itself."
            )
    return None
