"""Artifacts in a folder: written whole or not at all, with their SHA-256."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO
from uuid import uuid4

_CHUNK = 1 << 20


@dataclass(frozen=True)
class Stored:
    """What was stored: its key, size in bytes, and SHA-256 in hexadecimal."""

    key: str
    size: int
    sha256: str


class FolderStorage:
    """Files by key under one folder. Keys are made by the service, never by a user."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.root.mkdir(parents=True, exist_ok=True)

    def path(self, key: str) -> Path:
        """The path of ``key``. Raises ValueError for a key that would leave the folder."""
        pure = PurePosixPath(key)
        if pure.is_absolute() or ".." in pure.parts or not pure.parts:
            raise ValueError(f"not a storage key: {key!r}")
        return self.root.joinpath(*pure.parts)

    def put(self, key: str, source: Path | bytes | BinaryIO) -> Stored:
        """Store a file's content under ``key``; readers see all of it or nothing."""
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}")
        digest, size = hashlib.sha256(), 0
        try:
            with temporary.open("wb") as out:
                for chunk in _chunks(source):
                    digest.update(chunk)
                    size += len(chunk)
                    out.write(chunk)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return Stored(key, size, digest.hexdigest())

    def delete(self, key: str) -> None:
        """Remove a file or a folder; one that is not there is no error."""
        path = self.path(key)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _chunks(source: Path | bytes | BinaryIO) -> Iterator[bytes]:
    if isinstance(source, bytes):
        yield source
        return
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield from _chunks(file)
        return
    while chunk := source.read(_CHUNK):
        yield chunk
