"""What a store of artifacts can do; ``folder`` and ``s3`` do it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Protocol

CHUNK = 1 << 20  # bytes read or written at once


class StorageUnavailable(OSError):  # noqa: N818 - what is the case, not what went wrong
    """The store does not answer, or refuses us. What was asked for may work later."""


@dataclass(frozen=True)
class Stored:
    """What was stored: its key, size in bytes, and SHA-256 in hexadecimal."""

    key: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """A file in the store.

    Attributes:
        size: In bytes.
        modified: When it was stored (UTC).
    """

    key: str
    size: int
    modified: datetime


class Storage(Protocol):
    """Files by key. Keys are made by the service, never by a user.

    A key is a relative path with ``/``. What lies under a key does not change, except that it
    is deleted: another attempt and another upload have other keys. Every method raises
    StorageUnavailable where the store does not answer, and ValueError for what is no key.
    """

    @property
    def description(self) -> str:
        """Where this is, without secrets, for people."""

    def check(self) -> None:
        """Raise OSError with the reason where the store cannot be used."""

    def put(self, key: str, source: Path | bytes | BinaryIO) -> Stored:
        """Store a file's content under ``key``; readers see all of it or nothing.

        Raises FileNotFoundError where ``source`` is gone.
        """

    def stat(self, key: str) -> Entry | None:
        """The file under ``key``; None where there is none."""

    def is_intact(self, stored: Stored) -> bool:
        """Whether a file is as it was stored. Raises FileNotFoundError where it is gone.

        A folder's file is read at first, and again when it has changed. Of a bucket's only the
        size is compared: its server checks what it gives.
        """

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        """The bytes from ``start`` up to, not including, ``stop``, in pieces.

        Raises FileNotFoundError where there is no such file, at the call and not later.
        """

    def local(self, key: str) -> Path:
        """The path of the file on this machine, to be read now and not changed.

        A store elsewhere copies it here first, once. Raises FileNotFoundError.
        """

    def put_folder(self, key: str, folder: Path) -> None:
        """Store a folder's files under ``key``. The folder is moved away."""

    def has_folder(self, key: str) -> bool:
        """Whether a folder was stored under ``key``."""

    def local_folder(self, key: str) -> Path:
        """The folder on this machine, to be read and not changed. Raises FileNotFoundError."""

    def delete(self, key: str) -> None:
        """Remove a file or a folder, with all below it; one that is not there is no error."""

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Every file whose key is below ``prefix`` (a whole part of a path), in no order."""


def checked(key: str) -> str:
    """Return ``key``; raises ValueError where it is none."""
    pure = PurePosixPath(key)
    if pure.is_absolute() or ".." in pure.parts or not pure.parts or "\0" in key:
        raise ValueError(f"not a storage key: {key!r}")
    return str(pure)


def pieces(source: Path | bytes | BinaryIO) -> Iterator[bytes]:
    """The content of what is to be stored, in pieces of at most ``CHUNK`` bytes."""
    if isinstance(source, bytes):
        for start in range(0, len(source), CHUNK):
            yield source[start : start + CHUNK]
        return
    if isinstance(source, Path):
        with source.open("rb") as file:
            yield from pieces(file)
        return
    while piece := source.read(CHUNK):
        yield piece
