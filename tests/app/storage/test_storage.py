"""What every store promises, on each of them."""

import hashlib
import io
import random
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from mlhf_service.storage.protocol import Storage, Stored

LONG = random.Random(0).randbytes(20_000_000)  # more than two parts of an upload


def joined(store: Storage, key: str, start: int = 0, stop: int | None = None) -> bytes:
    return b"".join(store.read(key, start, stop))


@pytest.mark.parametrize("content", [b"", b"abc", LONG], ids=["empty", "short", "long"])
@pytest.mark.parametrize("kind", ["bytes", "path", "file"])
def test_what_is_put_is_read(store: Storage, content: bytes, kind: str, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(content)
    given = {"bytes": content, "path": source, "file": io.BytesIO(content)}[kind]
    stored = store.put("runs/r/1/model", given)
    assert stored == Stored("runs/r/1/model", len(content), hashlib.sha256(content).hexdigest())
    assert joined(store, "runs/r/1/model") == content
    assert store.local("runs/r/1/model").read_bytes() == content
    found = store.stat("runs/r/1/model")
    assert found is not None
    assert found.size == len(content)
    assert abs(found.modified - datetime.now(UTC)) < timedelta(minutes=5)


@pytest.mark.parametrize(
    ("start", "stop"),
    [(0, 1), (5, None), (8_388_600, 8_388_620), (19_999_999, 30_000_000), (7, 7), (25_000_000, 0)],
)
def test_a_part_is_read(store: Storage, start: int, stop: int | None) -> None:
    store.put("a", LONG)
    assert joined(store, "a", start, stop) == LONG[start:stop]


def test_what_is_not_there(store: Storage) -> None:
    assert store.stat("a/b") is None
    assert not store.has_folder("a")
    for method in (store.read, store.local, store.local_folder):
        with pytest.raises(FileNotFoundError):
            method("a/b")
    store.delete("a/b")
    assert list(store.list()) == list(store.list("a")) == []
    store.check()


@pytest.mark.parametrize("key", ["/etc/passwd", "../x", "a/../../x", "", "a\0b"])
def test_a_key_stays_inside(store: Storage, key: str) -> None:
    for method in (store.stat, store.read, store.local, store.delete, store.has_folder):
        with pytest.raises(ValueError, match="key"):
            method(key)
    with pytest.raises(ValueError, match="key"):
        store.put(key, b"")


def test_a_source_that_is_gone_or_breaks_leaves_nothing(store: Storage, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put("a", tmp_path / "gone")

    class Breaks(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() > 10_000_000:
                raise KeyboardInterrupt
            return super().read(size)

    with pytest.raises(KeyboardInterrupt):
        store.put("a", Breaks(LONG))
    assert list(store.list()) == []


def test_a_second_put_replaces_the_first(store: Storage) -> None:
    store.put("a", b"first")
    assert store.local("a").read_bytes() == b"first"
    store.put("a", b"second")
    assert joined(store, "a") == store.local("a").read_bytes() == b"second"


def test_list_and_delete(store: Storage) -> None:
    for key in ("runs/r1/1/a", "runs/r1/2/b", "runs/r10/1/c", "other"):
        store.put(key, key.encode())
    assert {e.key: e.size for e in store.list("runs/r1")} == {"runs/r1/1/a": 11, "runs/r1/2/b": 11}
    assert len(list(store.list())) == 4
    store.delete("runs/r1/1/a")
    assert {e.key for e in store.list()} == {"runs/r1/2/b", "runs/r10/1/c", "other"}
    store.delete("runs/r1")
    assert {e.key for e in store.list()} == {"runs/r10/1/c", "other"}


def test_a_folder(store: Storage, tmp_path: Path) -> None:
    files = {"a.txt": b"a", "train/cat/é 1.png": b"\x89PNG" * 1000, f"{'n' * 150}/big": LONG}
    folder = tmp_path / "made"
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    store.put_folder("datasets/ds_1", folder)
    assert not folder.exists()
    assert store.has_folder("datasets/ds_1")
    assert not store.has_folder("datasets/ds_")
    found = store.local_folder("datasets/ds_1")
    assert {
        p.relative_to(found).as_posix(): p.read_bytes() for p in found.rglob("*") if p.is_file()
    } == files
    assert store.local_folder("datasets/ds_1") == found
    store.delete("datasets/ds_1")
    assert not store.has_folder("datasets/ds_1")
    assert list(store.list("datasets")) == []
    with pytest.raises(FileNotFoundError):
        store.local_folder("datasets/ds_1")
