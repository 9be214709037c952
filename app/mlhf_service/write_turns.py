"""Writers of one SQLite database take turns: those of all processes, and the threads of each.

SQLite lets one write at a time, and has the others look again after ever longer pauses, so that
who has waited longest looks least often: among eight busy processes some wait for many seconds,
and give up in the end. Here each process asks for a lock on a file beside the database at short,
even intervals, with one of its threads at a time. SQLite's own lock stays what keeps data whole.
"""

import fcntl
import os
import random
import threading
import time
from pathlib import Path

_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.0005, 0.003  # seconds; uneven, so that no two keep step


class WriteTurns:
    """The turns of one database, as this process takes them.

    Args:
        path: Of the lock file; made where it is absent.
        timeout: Seconds after which a writer goes on without its turn: SQLite then decides.
    """

    def __init__(self, path: Path, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._forget()

    def _forget(self) -> None:
        self._process = os.getpid()
        self._threads = threading.Lock()
        self._file: int | None = None

    def take(self) -> bool:
        """Wait for a turn. Returns whether it is had; then ``give_back`` must follow."""
        if self._process != os.getpid():
            self._forget()  # after a fork: the parent's file would give its turns to both
        deadline = time.monotonic() + self._timeout
        if not self._threads.acquire(timeout=self._timeout):
            return False
        try:
            if self._file is None:
                self._file = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
            while not _locked(self._file):
                if time.monotonic() > deadline:
                    self._threads.release()
                    return False
                time.sleep(random.uniform(_SHORTEST_PAUSE, _LONGEST_PAUSE))
        except OSError:  # such as a folder that cannot be written to: SQLite will say so
            self._threads.release()
            return False
        return True

    def give_back(self) -> None:
        """End the turn that was taken."""
        try:
            if self._file is not None:
                fcntl.flock(self._file, fcntl.LOCK_UN)
        finally:
            self._threads.release()

    def __del__(self) -> None:
        if self._file is not None and self._process == os.getpid():
            os.close(self._file)


def _locked(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
