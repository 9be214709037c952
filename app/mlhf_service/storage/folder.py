"""Artifacts in a folder: written whole or not at all, with their SHA-256."""

import hashlib
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4

from mlhf_service.storage.integrity import IntactFiles
from mlhf_service.storage.protocol import CHUNK, Entry, Stored, checked, pieces

_SYNCED_FILES = 256


class FolderStorage:
    """Files by key under one folder, which API and workers share. See ``Storage``."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._intact = IntactFiles()

    @property
    def description(self) -> str:
        return str(self.root)

    def check(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)
        probe = self.root / f".check-{uuid4().hex}"
        try:
            probe.write_bytes(b"")
        finally:
            probe.unlink(missing_ok=True)

    def path(self, key: str) -> Path:
        """The path of ``key``. Raises ValueError for a key that would leave the folder."""
        return self.root.joinpath(checked(key))

    def put(self, key: str, source: Path | bytes | BinaryIO) -> Stored:
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{target.name}.{uuid4().hex}")
        digest, size = hashlib.sha256(), 0
        try:
            with temporary.open("wb") as out:
                for piece in pieces(source):
                    digest.update(piece)
                    size += len(piece)
                    out.write(piece)
                out.flush()
                os.fsync(out.fileno())
            temporary.replace(target)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        return Stored(key, size, digest.hexdigest())

    def is_intact(self, stored: Stored) -> bool:
        return self._intact.check(self.path(stored.key), stored.size, stored.sha256)

    def stat(self, key: str) -> Entry | None:
        path = self.path(key)
        return _entry(key, path) if path.is_file() else None

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        return read_file(self.path(key), start, stop)

    def local(self, key: str) -> Path:
        path = self.path(key)
        if not path.is_file():
            raise FileNotFoundError(key)
        return path

    def put_folder(self, key: str, folder: Path) -> None:
        _make_durable(folder)
        target = self.path(key)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(folder, target)

    def has_folder(self, key: str) -> bool:
        return self.path(key).is_dir()

    def local_folder(self, key: str) -> Path:
        path = self.path(key)
        if not path.is_dir():
            raise FileNotFoundError(key)
        return path

    def delete(self, key: str) -> None:
        path = self.path(key)
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        top = self.path(prefix) if prefix else self.root
        for folder, _, names in os.walk(top):
            for name in names:
                path = Path(folder, name)
                with suppress(FileNotFoundError):  # deleted meanwhile
                    yield _entry(path.relative_to(self.root).as_posix(), path)


def read_file(path: Path, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
    """The bytes of a file, in pieces; it is opened at the call."""
    file = path.open("rb")

    def rest() -> Iterator[bytes]:
        with file:
            file.seek(start)
            left = None if stop is None else max(0, stop - start)
            while piece := file.read(CHUNK if left is None else min(CHUNK, left)):
                left = None if left is None else left - len(piece)
                yield piece

    return rest()


def _entry(key: str, path: Path) -> Entry:
    status = path.stat()
    return Entry(key, status.st_size, datetime.fromtimestamp(status.st_mtime, UTC))


def _make_durable(folder: Path) -> None:
    """Wait until all files are on the disk: a row must never point to what a crash can take."""
    paths = [folder, *folder.rglob("*")]
    if len(paths) > _SYNCED_FILES:
        os.sync()
        return
    for path in paths:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
