"""Whether a stored file still has the size and SHA-256 that were written down for it."""

import os
import threading
from collections import OrderedDict
from pathlib import Path

from mlhf.core.atomic_files import size_and_sha256

_REMEMBERED = 10_000


class IntactFiles:
    """Reads a file once, and again only after its modification time or size has changed."""

    def __init__(self) -> None:
        self._known: OrderedDict[tuple[Path, str], tuple[int, int]] = OrderedDict()
        self._lock = threading.Lock()

    def check(self, path: Path, size: int, sha256: str) -> bool:
        """Whether the file is intact. Raises FileNotFoundError where it is gone."""
        stat = os.stat(path)
        if stat.st_size != size:
            return False
        key, state = (path, sha256), (stat.st_mtime_ns, stat.st_ino)
        with self._lock:
            if self._known.get(key) == state:
                self._known.move_to_end(key)
                return True
        if size_and_sha256(path) != (size, sha256):
            return False
        with self._lock:
            self._known[key] = state
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return True
