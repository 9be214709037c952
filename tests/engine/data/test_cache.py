"""Decoded data sets that are kept: the same values, or none."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from mlhf import train
from mlhf.data import cache as cache_module
from mlhf.data import image_folder
from mlhf.data.cache import DataCache, Decoded, key_of
from mlhf.data.info import DataInfo
from mlhf.data.loading import load
from mlhf.data.specs import DatasetSpec
from tests.waiting import until

NAMES = ["image_folder", "hf_images", "values", "floats", "table", "text", "mnist"]


@pytest.fixture
def kept(tmp_path):
    return DataCache(tmp_path / "cache", min_free_bytes=0)


@pytest.fixture
def sets(sets, tmp_path, encode, rng):
    """With Parquet and IDX files beside the others."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    pixels = rng.integers(0, 256, (30, 6, 6, 3), dtype=np.uint8)
    column = [{"bytes": encode(image), "path": "x.png"} for image in pixels]
    (tmp_path / "hf").mkdir()
    table = pa.table({"image": column, "label": [i % 3 for i in range(30)]})
    pq.write_table(table, tmp_path / "hf" / "train-0.parquet")
    (tmp_path / "idx").mkdir()
    for split, count in (("train", 40), ("t10k", 20)):
        images = rng.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in (("images-idx3", images), ("labels-idx1", labels)):
            header = bytes((0, 0, 8, array.ndim)) + np.array(array.shape, ">u4").tobytes()
            (tmp_path / "idx" / f"{split}-{name}-ubyte").write_bytes(header + array.tobytes())
    return {**sets, "hf_images": ({}, tmp_path / "hf"), "mnist": ({"size": 14}, tmp_path / "idx")}


def loaded(sets, name, cache=None, **options):
    params, root = sets[name]
    family = {"values": "npz", "floats": "npz"}.get(name, name)
    return load(family, params, root, cache=cache, **options)


def content(data):
    batches = [
        data.batch(split, torch.arange(data.size(split)), "cpu") for split in ("train", "test")
    ]
    return [tensor for batch in batches for tensor in batch]


def same(one, other):
    pairs = zip(content(one), content(other), strict=True)
    return (
        one.info == other.info
        and one.preprocessing == other.preprocessing
        and all(a.dtype == b.dtype and torch.equal(a, b) for a, b in pairs)
    )


def entries(kept):
    return sorted(kept.folder.glob("*.safetensors"))


def tiny(value=0.0, count=1000):
    info = DataInfo("table", (1,), 1, "regression", count, 0)
    names = ("train_inputs", "train_targets", "test_inputs", "test_targets")
    return Decoded(info, {}, {name: torch.full((count, 1), float(value)) for name in names})


@pytest.mark.parametrize("name", NAMES)
def test_what_is_kept_is_what_was_decoded(sets, name, kept, monkeypatch):
    plain, first = loaded(sets, name), loaded(sets, name, kept)
    monkeypatch.setattr(DatasetSpec, "read", None)  # from here on nothing is decoded
    again = loaded(sets, name, kept)
    assert same(plain, first)
    assert same(plain, again)
    assert len(entries(kept)) == 1
    assert again.sha256 == first.sha256


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: content[:-9] + bytes(b ^ 1 for b in content[-9:]),
        lambda content: b"\xff" * 8 + content[8:],
    ],
    ids=["half", "empty", "flipped", "header"],
)
def test_a_damaged_entry_is_made_anew(sets, kept, damage):
    plain = loaded(sets, "image_folder", kept)
    (path,) = entries(kept)
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert same(loaded(sets, "image_folder", kept), plain)
    (path,) = entries(kept)
    assert path.read_bytes() == whole


def test_other_parameters_content_and_code_are_other_entries(sets, kept, monkeypatch):
    loaded(sets, "table", kept)
    params, root = sets["table"]
    load("table", {**params, "train_samples": 9}, root, cache=kept)
    root.write_text(root.read_text() + "1.0,u,2.0\n")
    plain = loaded(sets, "table")
    assert same(loaded(sets, "table", kept), plain)
    monkeypatch.setattr(cache_module, "_decoders", lambda: ["another version"])
    loaded(sets, "table", kept)
    assert len(entries(kept)) == 4


def test_the_digest_that_is_known_is_not_computed(sets, kept, monkeypatch):
    monkeypatch.setattr(DatasetSpec, "digest", None)
    assert loaded(sets, "values", kept, sha256="ab" * 32).sha256 == "ab" * 32


def test_what_a_run_writes_into_its_data_is_not_kept(kept):
    kept.put("key", tiny(1.0))
    first = kept.get("key").tensors["train_inputs"]
    first.fill_(7)
    assert kept.get("key").tensors["train_inputs"].eq(1).all()


def test_the_longest_unused_make_room(tmp_path):
    size = tiny().bytes
    kept = DataCache(tmp_path, max_bytes=int(3.5 * size), min_free_bytes=0)
    for number, key in enumerate("abc"):
        kept.put(key, tiny(number))
        (path,) = tmp_path.glob(f"{key}.*")
        os.utime(path, (number, number))
    assert kept.get("a") is not None  # used now
    kept.put("d", tiny(3))
    assert [kept.get(key) is not None for key in "abcd"] == [True, False, True, True]
    kept.put("large", tiny(count=10_000))
    assert kept.get("large") is None
    assert kept.get("d") is not None


def test_an_entry_in_use_may_be_deleted(kept):
    kept.put("key", tiny(5.0))
    values = kept.get("key").tensors["train_inputs"]
    entries(kept)[0].unlink()
    assert values.eq(5).all()


def test_a_full_disk_or_a_bad_folder_is_told_and_nothing_else(sets, tmp_path, kept):
    told = []
    full = DataCache(kept.folder, min_free_bytes=2**60)
    assert same(loaded(sets, "text", full, warn=told.append), loaded(sets, "text"))
    assert told == ["The decoded data set is not kept for further runs: No space left on device."]
    (tmp_path / "file").write_text("in the way")
    loaded(sets, "text", DataCache(tmp_path / "file"), warn=told.append)
    assert len(told) == 2


def test_what_a_killed_writer_left_is_deleted_and_a_living_one_s_is_not(kept, monkeypatch):
    kept.put("first", tiny())
    abandoned = kept.folder / "abandoned.partial"
    unlocked = kept.folder / "unlocked.partial"
    for path in (abandoned, unlocked):
        path.mkdir()
    (abandoned / "lock").touch()
    for path in (abandoned, unlocked):
        os.utime(path, (0, 0))
    fresh = kept.folder / "fresh.partial"
    fresh.mkdir()
    with cache_module._partial_folder(kept.folder) as living:
        os.utime(living, (0, 0))
        kept.put("second", tiny())
        assert living.exists()
    assert [path.name for path in kept.folder.glob("*.partial")] == ["fresh.partial"]


@pytest.mark.long
def test_writers_that_are_killed_leave_nothing_wrong(kept):
    code = """if True:
        import sys, torch
        from pathlib import Path
        from tests.engine.data.test_cache import tiny
        from mlhf.data.cache import DataCache
        kept = DataCache(Path(sys.argv[1]), max_bytes=2**24, min_free_bytes=0)
        print("ready", flush=True)
        for number in range(10**6):
            kept.put(f"key{number % 7}", tiny(number % 7, 40_000))
    """
    writers = [
        subprocess.Popen([sys.executable, "-c", code, str(kept.folder)], stdout=subprocess.PIPE)
        for _ in range(2)
    ]
    for writer in writers:
        writer.stdout.readline()
    for writer in writers:
        until(lambda: entries(kept), "nothing was written")
        time.sleep(0.1)
        writer.send_signal(signal.SIGKILL)
        writer.communicate()
    for number in range(7):
        found = kept.get(f"key{number}")
        assert found is None or found.tensors["test_targets"].eq(number).all()


def test_large_sets_that_are_decoded_batch_by_batch_are_not_kept(sets, kept, monkeypatch):
    held = loaded(sets, "image_folder")
    monkeypatch.setattr(image_folder, "HELD_BYTES", 10)
    assert same(loaded(sets, "image_folder", kept), held)
    assert entries(kept) == []


def test_a_run_is_the_same_with_it_and_tells_what_was_not_kept(sets, config, tmp_path):
    params, root = sets["image_folder"]
    changes = {
        "dataset": {"name": "image_folder", "params": params, "root": str(root)},
        "batch_size": 4,
    }
    digests, results = set(), []
    for folder in (None, tmp_path / "kept", tmp_path / "kept", __file__):
        events = []
        done = train(config(**changes), events.append, data_cache=folder)
        started = next(e for e in events if e["type"] == "started")
        digests.add(started["environment"]["data_digest"])
        results.append(list(done.model.state_dict().values()))
    assert all(
        torch.equal(a, b) for other in results[1:] for a, b in zip(results[0], other, strict=True)
    )
    assert len(digests) == 1
    (told,) = [e for e in events if e["type"] == "log"]
    assert told["level"] == "warning"
    assert "not kept" in told["message"]


def test_a_key_depends_on_all_that_the_values_do():
    one = key_of("npz", {"a": 1}, "ab")
    assert key_of("npz", {"a": 1}, "ab") == one
    others = (("text", {"a": 1}, "ab"), ("npz", {"a": 2}, "ab"), ("npz", {"a": 1}, "cd"))
    assert len({one, *(key_of(*other) for other in others)}) == 4
