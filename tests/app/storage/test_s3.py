"""A bucket: what a folder has not. Credentials, outages, copies on this machine."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from mlhf_service.storage.local_cache import LocalCache
from mlhf_service.storage.protocol import StorageUnavailable
from tests import s3_server
from tests.s3_server import KEY, SECRET, S3Server

pytest.importorskip("obstore")
from mlhf_service.storage.s3 import S3Storage


@pytest.fixture
def cache(tmp_path: Path) -> LocalCache:
    return LocalCache(tmp_path / "cache", 2**30)


def test_the_same_files_elsewhere(bucket: str, cache: LocalCache, tmp_path: Path) -> None:
    folder = tmp_path / "made"
    folder.mkdir()
    (folder / "text.txt").write_text("hello")
    S3Storage(bucket, cache).put_folder("datasets/ds_1", folder)
    other = S3Storage(bucket, LocalCache(tmp_path / "other", 2**30))
    assert (other.local_folder("datasets/ds_1") / "text.txt").read_text() == "hello"
    assert {entry.key for entry in other.list()} == {"datasets/ds_1/files.tar"}
    assert other.description.startswith(bucket)


def test_a_copy_that_broke_off_is_taken_up(
    bucket: str, cache: LocalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = S3Storage(bucket, cache)
    content = bytes(range(256)) * 80_000
    store.put("a", content)
    read, asked = store.read, []

    def broken(key: str, start: int = 0, stop: int | None = None) -> Any:
        asked.append(start)
        for number, part in enumerate(read(key, start, stop)):
            if len(asked) == 1 and number == 1:
                raise StorageUnavailable("away")
            yield part

    monkeypatch.setattr(store, "read", broken)
    with pytest.raises(StorageUnavailable):
        store.local("a")
    assert store.local("a").read_bytes() == content
    assert asked == [0, 8 << 20]


def test_keys_from_the_shared_file(
    bucket: str, cache: LocalCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    path = tmp_path / "credentials"
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(path))
    monkeypatch.setenv("AWS_PROFILE", "mine")
    path.write_text(f"[mine]\naws_access_key_id = {KEY}\naws_secret_access_key = {SECRET}\n")
    S3Storage(bucket, cache).check()
    path.write_text(f"[mine]\naws_access_key_id = {KEY}\n")
    with pytest.raises(StorageUnavailable, match="aws_secret_access_key"):
        S3Storage(bucket, cache).check()


def test_wrong_keys_are_told(
    bucket: str, cache: LocalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    store = S3Storage(bucket, cache)
    with pytest.raises(StorageUnavailable, match=r"SignatureDoesNotMatch.*AWS_SECRET") as told:
        store.put("a", b"")
    assert "not-the-secret" not in str(told.value)


def test_a_bucket_that_is_not_there(bucket: str, cache: LocalCache) -> None:
    store = S3Storage("s3://not-there-at-all/x", cache)
    with pytest.raises(StorageUnavailable, match=r"no such bucket|NoSuchBucket"):
        store.check()


@pytest.mark.long
def test_an_outage_is_waited_out_or_told(tmp_path: Path, cache: LocalCache) -> None:
    s3_server.require()
    server = S3Server(tmp_path / "s3")
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        try:
            server.start()
            store = S3Storage(f"s3://{s3_server.BUCKET}/x", cache, retry_seconds=1)
            store.put("a", b"before")
            server.signal(signal.SIGKILL)
            with pytest.raises(StorageUnavailable):
                store.put("b", b"during")
            server.start()
            store.put("c", b"after")
            assert {entry.key for entry in store.list()} == {"a", "c"}
            assert b"".join(store.read("a")) == b"before"
        finally:
            server.remove()


_MEMORY = """
import resource, sys
from pathlib import Path
from mlhf_service.storage.local_cache import LocalCache
from mlhf_service.storage.s3 import S3Storage
store = S3Storage(sys.argv[1], LocalCache(Path(sys.argv[3]), 2**40))
store.put("small", bytes(1000)); b"".join(store.read("small"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
store.put("big", Path(sys.argv[2]))
for _ in store.read("big"): pass
store.local("big")
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


def test_no_file_is_held_in_memory(bucket: str, tmp_path: Path) -> None:
    big = tmp_path / "big"
    with big.open("wb") as file:
        file.truncate(200_000_000)
    command = [sys.executable, "-c", _MEMORY, bucket, str(big), str(tmp_path / "cache")]
    ended = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(ended.stdout) < 110  # MiB; half of the file
