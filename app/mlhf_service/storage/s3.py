"""Artifacts in a bucket of S3 or of a server that speaks its protocol."""

import hashlib
import logging
import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import BinaryIO
from urllib.parse import urlsplit

import obstore
from obstore.exceptions import (
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import S3Store

from mlhf_service.storage import tar_stream
from mlhf_service.storage.credentials import shared_credentials
from mlhf_service.storage.local_cache import LocalCache
from mlhf_service.storage.protocol import (
    Entry,
    Storage,
    StorageUnavailable,
    Stored,
    checked,
    pieces,
)

log = logging.getLogger(__name__)

_PART = 8 << 20  # bytes of one request; S3 takes at most 10,000 parts of a file
_PARTS_AT_ONCE = 4
_FOLDER = "files.tar"
# Whoever waits for an answer, or holds a lease, gets to know then.
_RETRY_SECONDS = 10.0


class S3Storage:
    """Files by key in a bucket, below a prefix. See ``Storage``.

    Endpoint, region and credentials are the standard ones: the variables ``AWS_*``, the shared
    credentials file, or the role of the machine or pod. No file is held in memory: at most
    ``_PARTS_AT_ONCE`` parts are.
    """

    def __init__(self, url: str, cache: LocalCache, retry_seconds: float = _RETRY_SECONDS) -> None:
        parts = urlsplit(url)
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._cache = cache
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        self._endpoint = endpoint or "AWS"
        self._store = S3Store(
            self._bucket,
            prefix=self._prefix or None,
            config={
                "region": region or "us-east-1",
                # Of S3 itself by its region; servers of one's own mostly know paths only.
                **({"endpoint": endpoint} if endpoint else {}),
                "virtual_hosted_style_request": endpoint is None,
            },
            client_options={
                "allow_http": bool(endpoint and endpoint.startswith("http://")),
                "connect_timeout": timedelta(seconds=5),
                "timeout": timedelta(seconds=60),  # of one part
            },
            retry_config={
                "max_retries": 8,
                "retry_timeout": timedelta(seconds=retry_seconds),
                "backoff": {
                    "init_backoff": timedelta(milliseconds=100),
                    "max_backoff": timedelta(seconds=2),
                    "base": 2,
                },
            },
            credential_provider=shared_credentials(),
        )

    @property
    def description(self) -> str:
        return f"s3://{self._bucket}/{self._prefix} at {self._endpoint}"

    def check(self) -> None:
        with self._reached():
            next(iter(obstore.list(self._store, chunk_size=1)), None)

    def put(self, key: str, source: Path | bytes | BinaryIO) -> Stored:
        return self._put(key, pieces(source))

    def _put(self, key: str, content: Iterator[bytes]) -> Stored:
        digest, size = hashlib.sha256(), 0

        def counted() -> Iterator[bytes]:
            nonlocal size
            for part in _parts(content):
                digest.update(part)
                size += len(part)
                yield part

        parts = counted()
        first = next(parts, b"")  # of a source that cannot be read nothing is sent
        path = checked(key)
        with self._reached():
            if len(first) < _PART:
                obstore.put(self._store, path, first, use_multipart=False)
            else:
                obstore.put(
                    self._store,
                    path,
                    _again(first, parts),
                    chunk_size=_PART,
                    max_concurrency=_PARTS_AT_ONCE,
                )
        return Stored(key, size, digest.hexdigest())

    def stat(self, key: str) -> Entry | None:
        try:
            with self._reached():
                found = obstore.head(self._store, checked(key))
        except FileNotFoundError:
            return None
        return Entry(key, found["size"], found["last_modified"])

    def is_intact(self, stored: Stored) -> bool:
        found = self.stat(stored.key)
        if found is None:
            raise FileNotFoundError(stored.key)
        return found.size == stored.size

    def read(self, key: str, start: int = 0, stop: int | None = None) -> Iterator[bytes]:
        path = checked(key)
        with self._reached():
            found = obstore.head(self._store, path)
        end = found["size"] if stop is None else min(stop, found["size"])
        # One request a part, and not one for all: a client may take hours for its download.
        return self._range(path, found["e_tag"], start, end)

    def _range(self, path: str, etag: str | None, start: int, end: int) -> Iterator[bytes]:
        while start < end:
            stop = min(start + _PART, end)
            try:
                with self._reached():
                    result = obstore.get(
                        self._store, path, options={"range": (start, stop), "if_match": etag}
                    )
                    part = bytes(result.bytes())
            except PreconditionError:
                raise StorageUnavailable(f"{path} was replaced while it was read") from None
            start = stop
            yield part

    def local(self, key: str) -> Path:
        name = self._cached_name(key, checked(key))
        return self._cache.get(name, partial(self._fetch, key, self._cache.partial(name)))

    def _fetch(self, key: str, gathered: Path, target: Path) -> None:
        """Copy a file; what an earlier try has gathered is not asked for again."""
        with gathered.open("ab") as out:
            for part in self.read(key, start=out.tell()):
                out.write(part)
        gathered.replace(target)

    def put_folder(self, key: str, folder: Path) -> None:
        path = f"{checked(key)}/{_FOLDER}"
        self._put(path, tar_stream.pack(folder))
        # Whoever has uploaded a data set soon asks about it.
        self._cache.keep(self._cached_name(key, path), folder)

    def has_folder(self, key: str) -> bool:
        return self.stat(f"{checked(key)}/{_FOLDER}") is not None

    def local_folder(self, key: str) -> Path:
        path = f"{checked(key)}/{_FOLDER}"
        name = self._cached_name(key, path)
        return self._cache.get(name, lambda made: tar_stream.unpack(self.read(path), made))

    def _cached_name(self, key: str, path: str) -> str:
        """A name for what lies under ``path`` now. Raises FileNotFoundError."""
        with self._reached():
            etag = obstore.head(self._store, path)["e_tag"] or ""
        digest = hashlib.sha256(f"{self._bucket}/{self._prefix}/{path} {etag}".encode()).hexdigest()
        return f"{digest[:32]}-{re.sub(r'[^A-Za-z0-9._-]', '_', key.rpartition('/')[2])}"[:120]

    def delete(self, key: str) -> None:
        path = checked(key)
        with self._reached():
            obstore.delete(self._store, path)
        for entry in self.list(path):
            with self._reached():
                obstore.delete(self._store, entry.key)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        with self._reached():
            for page in obstore.list(self._store, f"{checked(prefix)}/" if prefix else None):
                for found in page:
                    yield Entry(found["path"], found["size"], found["last_modified"])

    @contextmanager
    def _reached(self) -> Iterator[None]:
        """Turn what the library raises into what ``Storage`` promises."""
        try:
            yield
        except PreconditionError:
            raise
        except FileNotFoundError as error:
            if "NoSuchBucket" in str(error):
                raise self._unavailable("there is no such bucket: make it") from None
            raise FileNotFoundError("there is no such file in the store") from None
        except (PermissionDeniedError, UnauthenticatedError) as error:
            raise self._unavailable(
                f"it refuses our credentials ({_code(error)}): see AWS_ACCESS_KEY_ID, "
                "AWS_SECRET_ACCESS_KEY, AWS_SHARED_CREDENTIALS_FILE and AWS_REGION"
            ) from None
        except BaseError as error:
            raise self._unavailable(_code(error)) from None

    def _unavailable(self, why: str) -> StorageUnavailable:
        error = StorageUnavailable(f"The artifact store {self.description} cannot be used: {why}.")
        log.warning("%s", error)
        return error


def _code(error: Exception) -> str:
    """What an S3 server says is wrong, or the first line of what the library says."""
    text = str(error)
    code = re.search(r"<Code>(\w+)</Code>", text)
    return code.group(1) if code else text.splitlines()[0].rpartition(" - ")[2].rstrip(". ")[:400]


def _parts(content: Iterator[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of exactly ``_PART`` bytes, but for the last."""
    part = bytearray()
    for piece in content:
        part += piece
        while len(part) >= _PART:
            yield bytes(part[:_PART])
            del part[:_PART]
    if part:
        yield bytes(part)


def _again(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest


_: Callable[[str, LocalCache], Storage] = S3Storage  # checked by mypy
