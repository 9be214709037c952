"""The file of a backup: a tar archive of rows, files, and a manifest with their SHA-256.

``tables/<name>.jsonl.gz`` are rows; ``files/<key>`` are files of the store, ``folders/<key>/…``
those of its folders. ``manifest.json`` comes last, for it says what all of that was.
"""

import hashlib
import io
import json
import os
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from pydantic import BaseModel, ValidationError

from mlhf_service.errors import StartError

FORMAT = 1
MANIFEST, TABLES, FILES, FOLDERS = "manifest.json", "tables/", "files/", "folders/"
_CHUNK = 2**20


class Member(BaseModel):
    """One file in the archive."""

    size: int
    sha256: str


class Manifest(BaseModel):
    """What a backup holds."""

    format: int
    version: str  # of MLHF
    schema_revision: str
    database: str  # sqlite | postgresql
    created_at: str
    settings: dict[str, Any]
    rows: dict[str, int]  # by table
    missing: list[str]  # keys of files that were named, but not in the store
    damaged: list[str]  # keys of files that differ from the SHA-256 in the database
    members: dict[str, Member]


class Writer:
    """Adds members to an archive, and keeps what the manifest says of them."""

    def __init__(self, archive: tarfile.TarFile) -> None:
        self._archive = archive
        self.members: dict[str, Member] = {}

    def add(self, name: str, source: IO[bytes], size: int) -> str:
        """Add ``size`` bytes; returns their SHA-256."""
        reader = _Hashed(source)
        info = tarfile.TarInfo(name)
        info.size, info.mode = size, 0o600
        self._archive.addfile(info, reader)
        digest = reader.digest.hexdigest()
        self.members[name] = Member(size=size, sha256=digest)
        return digest

    def finish(self, manifest: Manifest) -> None:
        content = manifest.model_dump_json(indent=1).encode()
        info = tarfile.TarInfo(MANIFEST)
        info.size, info.mode = len(content), 0o600
        self._archive.addfile(info, io.BytesIO(content))


class _Hashed:
    """A file whose bytes are digested as they are read."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self.digest = hashlib.sha256()

    def read(self, size: int = -1) -> bytes:
        content = self._source.read(size)
        self.digest.update(content)
        return content


@contextmanager
def writing(path: Path) -> Iterator[Writer]:
    """Write an archive to ``path``, whole or not at all, for its owner's eyes only.

    Raises StartError where there is a file already.
    """
    if path.exists():
        raise StartError(f"{path} is there already: choose another name for the backup.")
    partial = path.with_name(path.name + ".part")
    partial.unlink(missing_ok=True)
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "wb") as out:
            with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as archive:
                yield Writer(archive)
            out.flush()
            os.fsync(out.fileno())
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def verify(path: Path) -> Manifest:
    """Read all of an archive and compare it with its manifest.

    Raises StartError where it is damaged, cut off, or no backup of ours.
    """
    found: dict[str, Member] = {}
    manifest: Manifest | None = None
    try:
        for info, content in members(path):
            if manifest is not None:
                raise StartError(f"{path} is damaged: it goes on after its manifest.")
            if info.name == MANIFEST:
                manifest = Manifest.model_validate_json(content.read())
                continue
            digest = hashlib.sha256()
            while chunk := content.read(_CHUNK):
                digest.update(chunk)
            found[info.name] = Member(size=info.size, sha256=digest.hexdigest())
    except (tarfile.TarError, EOFError, ValidationError, json.JSONDecodeError) as error:
        raise StartError(f"{path} is damaged, or no backup of MLHF ({_line(error)}).") from None
    if manifest is None:
        raise StartError(f"{path} is cut off, or no backup of MLHF: it has no manifest.")
    if manifest.format != FORMAT:
        raise StartError(
            f"{path} has format {manifest.format}, and this version reads {FORMAT}. Upgrade mlhf."
        )
    wrong = sorted(
        name
        for name in manifest.members.keys() | found.keys()
        if manifest.members.get(name) != found.get(name)
    )
    if wrong:
        raise StartError(f"{path} is damaged: {wrong[0]} is not what its manifest says.")
    return manifest


def members(path: Path) -> Iterator[tuple[tarfile.TarInfo, IO[bytes]]]:
    """Every file in an archive, in order, each to be read before the next."""
    with tarfile.open(path, mode="r|") as archive:
        for info in archive:
            content = archive.extractfile(info) if info.isreg() else None
            if content is None:
                raise tarfile.ReadError(f"{info.name} is no plain file")
            yield info, content


def _line(error: Exception) -> str:
    return str(error).partition("\n")[0]
