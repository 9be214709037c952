"""Copies, on this machine, of what a store elsewhere holds; the least used make room."""

import fcntl
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

# A trainer copies a file, and opens the files of a data set, long before this is over; on
# Linux what is open can be deleted and still be read.
_IN_USE_SECONDS = 6 * 3600.0
_PARTIAL_SECONDS = 86_400.0


class LocalCache:
    """Files and folders by name under one folder. Several processes may share it.

    Args:
        max_bytes: Above it, what was not used for hours is deleted, the longest unused first.
    """

    def __init__(self, root: Path, max_bytes: int) -> None:
        self.root = root
        self.max_bytes = max_bytes

    def get(self, name: str, fill: Callable[[Path], object]) -> Path:
        """The entry ``name``; made by ``fill``, which writes it to the path that it is given.

        Of two processes that want the same entry at once, one fills it and one waits.
        """
        target = self.root / name
        if not target.exists():
            self.root.mkdir(parents=True, exist_ok=True)
            with (self.root / f".{name}.lock").open("a") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                if not target.exists():
                    self.make_room()
                    made = self.root / f".{name}.{uuid4().hex}"
                    try:
                        fill(made)
                        made.replace(target)
                    finally:
                        _remove(made)
        with suppress(FileNotFoundError):
            os.utime(target)
        return target

    def keep(self, name: str, made: Path) -> None:
        """Take a finished file or folder in as the entry ``name``: it is moved away."""
        self.get(name, lambda target: shutil.move(made, target))

    def partial(self, name: str) -> Path:
        """Where a long copy is gathered, so that one that broke off can be taken up."""
        return self.root / f".{name}.partial"

    def make_room(self) -> None:
        """Delete what was not used for long while there is too much, and what broke off."""
        now, entries, total = time.time(), [], 0
        for path in self.root.glob("*"):
            with suppress(OSError):
                age = now - path.stat().st_mtime
                if path.name.startswith("."):
                    if age > _PARTIAL_SECONDS:
                        _remove(path)
                    continue
                size = _size(path)
                total += size
                entries.append((age, size, path))
        for age, size, path in sorted(entries, reverse=True):
            if total <= self.max_bytes or age < _IN_USE_SECONDS:
                return
            _remove(path)
            total -= size


def _size(path: Path) -> int:
    if not path.is_dir():
        return path.stat().st_size
    return sum(each.stat().st_size for each in path.rglob("*") if each.is_file())


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
