"""SQLite's write-ahead log, brought to the disk after a commit, once for all who wait for it.

SQLite does this within the commit, while it holds its write lock: every writer then waits for the
disk as often as there are writers before it. Here a commit ends first (``synchronous=NORMAL``:
the log is in order and complete, if not on the disk yet), the next writer begins, and whoever has
committed waits until the log is on the disk. One call to the disk serves all threads that have
committed before it. What follows a write, such as an answer to a client, follows the disk too.
Only a reader may see what a power cut a moment later takes back.
"""

import os
import threading
from contextlib import suppress
from pathlib import Path

from sqlalchemy.exc import OperationalError

_to_disk = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class CommitLog:
    """The log of one database, as this process waits for it."""

    def __init__(self) -> None:
        self._path: Path | None = None
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._turn = threading.Lock()
        self._started = self._done = 0
        self._named = -1  # the file whose entry in its folder is on the disk

    def opened(self, file: str) -> None:
        """Say where SQLite has found the database: past links and out of URLs; none in memory."""
        self._path = Path(f"{file}-wal") if file else None

    def sync(self) -> None:
        """Return once all that this thread has committed is on the disk.

        Raises OperationalError where the disk does not take it.
        """
        if self._process != os.getpid():
            self._forget()  # after a fork, another thread may have had its turn
        mine = self._started + 1  # one that is under way may have begun before the commit
        with self._turn:
            if self._done < mine:
                self._started += 1
                try:
                    self._sync()
                except OSError as error:
                    raise OperationalError("fdatasync", None, error) from error
                self._done = self._started

    def _sync(self) -> None:
        if self._path is None:
            return
        try:
            file = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:  # whoever closed the database last has written it all
            return
        try:
            _to_disk(file)
            found = os.fstat(file).st_ino
            if found != self._named:
                _sync_folder(self._path.parent)
                self._named = found
        finally:
            os.close(file)


def _sync_folder(path: Path) -> None:
    """Bring the names in a folder to the disk, where the file system can do so."""
    with suppress(OSError):
        folder = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
