"""Copies on this machine: filled once, and bounded."""

import os
import threading
import time
from pathlib import Path

import pytest

from mlhf_service.storage.local_cache import LocalCache


def test_an_entry_is_filled_once_by_many(tmp_path: Path) -> None:
    cache, filled = LocalCache(tmp_path / "cache", 2**30), []

    def fill(path: Path) -> None:
        filled.append(path)
        time.sleep(0.05)
        path.write_text("content")

    threads = [threading.Thread(target=cache.get, args=("a", fill)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(filled) == 1
    assert cache.get("a", fill).read_text() == "content"


def test_what_breaks_off_leaves_no_entry(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 2**30)

    def breaks(path: Path) -> None:
        path.mkdir()
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        cache.get("a", breaks)
    assert not [p for p in cache.root.iterdir() if not p.name.endswith(".lock")]


def test_the_longest_unused_make_room_but_nothing_in_use(tmp_path: Path) -> None:
    cache = LocalCache(tmp_path / "cache", 250)
    for name, hours in (("old", 40), ("older", 50), ("newer", 8), ("used", 0)):
        path = cache.get(name, lambda made: made.write_bytes(bytes(100)))
        os.utime(path, (time.time() - 3600 * hours,) * 2)
    (cache.root / ".gone.partial").write_bytes(b"x")
    os.utime(cache.root / ".gone.partial", (0, 0))
    cache.make_room()
    assert {p.name for p in cache.root.iterdir() if p.name[0] != "."} == {"newer", "used"}
    assert not (cache.root / ".gone.partial").exists()
    small = LocalCache(cache.root, 0)
    small.make_room()
    assert {p.name for p in cache.root.iterdir() if p.name[0] != "."} == {"used"}
