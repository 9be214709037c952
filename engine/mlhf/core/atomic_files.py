"""Files that are either complete or absent, also after a crash. Needs no torch."""

import contextlib
import hashlib
import os
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Written:
    """A file that is on the disk."""

    path: Path
    size: int
    sha256: str


def write(path: Path, content: bytes) -> Written:
    """Write a file under a temporary name, sync it to the disk, then rename it."""
    temporary = path.with_name(f".{path.name}.tmp")
    with open(temporary, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)
    with contextlib.suppress(OSError):  # not every file system can sync a folder
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    return Written(path, len(content), hashlib.sha256(content).hexdigest())


def size_and_sha256(path: Path) -> tuple[int, str]:
    """Return a file's size and sha256."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return path.stat().st_size, digest.hexdigest()
