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
from pathlib import Path

from sqlalchemy.exc import OperationalError

_to_disk = getattr(os, "fdatasync", os.fsync)  # macOS has no fdatasync


class CommitLog:
    """The log of one database, as this process waits for it.

    Args:
        database: The path of the database's file.
    """

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(f"{database.name}-wal")
        self._turn = threading.Lock()
        self._started = self._done = 0
        self._named = -1  # the file whose entry in its folder is on the disk

    def sync(self) -> None:
        """Return once all that this thread has committed is on the disk.

        Raises OperationalError where the disk does not take it.
        """
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
        try:
            file = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:  # whoever closed the database last has written it all
            return
        try:
            _to_disk(file)
            found = os.fstat(file).st_ino
            if found != self._named:
                self._sync_folder()
                self._named = found
        finally:
            os.close(file)

    def _sync_folder(self) -> None:
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
