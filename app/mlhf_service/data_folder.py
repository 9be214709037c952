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
    """Delete the folders of an earlier service's trainers; other files that are there stay."""
    for attempt in settings.spool_dir.glob("run_*"):
        shutil.rmtree(attempt, ignore_errors=True)
