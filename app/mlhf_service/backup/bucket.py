"""A backup in a bucket: written to a file here, and copied there; or fetched from there."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mlhf_service.errors import StartError
from mlhf_service.settings import Settings
from mlhf_service.storage.protocol import Storage, StorageUnavailable

SCHEME = "s3://"


@contextmanager
def to_write(target: str, settings: Settings) -> Iterator[Path]:
    """A path to write a backup to, which is then copied to ``target``, a path or s3://….

    Raises StartError where the bucket cannot be used; that is known before the backup is made.
    """
    if not target.startswith(SCHEME):
        yield Path(target)
        return
    with _reached(target, settings) as (storage, name), _scratch(settings) as folder:
        if storage.stat(name) is not None:
            raise StartError(f"{target} is there already: choose another name, or delete it.")
        yield folder / name
        storage.put(name, folder / name)


@contextmanager
def to_read(source: str, settings: Settings) -> Iterator[Path]:
    """The path of a backup, a copy where ``source`` lies in a bucket. Raises StartError."""
    if not source.startswith(SCHEME):
        yield Path(source)
        return
    with _reached(source, settings) as (storage, name), _scratch(settings) as folder:
        try:
            with (folder / name).open("wb") as out:
                for part in storage.read(name):
                    out.write(part)
        except FileNotFoundError:
            raise StartError(f"There is no {source}.") from None
        yield folder / name


@contextmanager
def _reached(url: str, settings: Settings) -> Iterator[tuple[Storage, str]]:
    """The store above a file's URL, and the file's key in it."""
    where, _, name = url.rpartition("/")
    if not name or len(where) <= len(SCHEME):
        raise StartError(f"{url} names no file in a bucket: use s3://bucket/folder/file.tar")
    from mlhf_service.storage.local_cache import LocalCache
    from mlhf_service.storage.s3 import S3Storage

    cache = LocalCache(settings.artifact_cache_dir, settings.artifact_cache_bytes)
    try:
        yield S3Storage(where, cache), name
    except StorageUnavailable as error:
        raise StartError(str(error)) from None


@contextmanager
def _scratch(settings: Settings) -> Iterator[Path]:
    """A folder on the service's disk: a backup may be larger than a system's /tmp."""
    settings.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="backup-", dir=settings.root) as name:
        yield Path(name)
