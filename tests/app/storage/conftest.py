"""Stores to test: a folder, and a bucket of a server of the tests' own."""

from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest

from mlhf_service.storage.folder import FolderStorage
from mlhf_service.storage.local_cache import LocalCache
from mlhf_service.storage.protocol import Storage
from tests import s3_server
from tests.s3_server import BUCKET, S3Server


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A running server."""
    s3_server.require()
    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.remove()


@pytest.fixture
def bucket(s3: S3Server, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty part of a bucket, with the environment that leads there."""
    for name, value in s3.environment.items():
        monkeypatch.setenv(name, value)
    return f"s3://{BUCKET}/{uuid4().hex}"


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Storage:
    if request.param == "folder":
        return FolderStorage(tmp_path / "store")
    url = request.getfixturevalue("bucket")
    from mlhf_service.storage.s3 import S3Storage

    return S3Storage(url, LocalCache(tmp_path / "cache", 2**30))
