"""Small data sets of each format, damaged at random, sent as uploads."""

import io
import json
import random
import time
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from fastapi.testclient import TestClient
from PIL import Image

from mlhf_service.settings import Settings

SLOW_SECONDS = 20.0


@dataclass
class Found:
    """What was answered, and what should not have been."""

    statuses: Counter[int] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    slowest: float = 0.0

    def line(self) -> str:
        statuses = ", ".join(f"{n} x {status}" for status, n in sorted(self.statuses.items()))
        text = f"{self.statuses.total():,} uploads: {statuses}; slowest {self.slowest:.1f} s"
        return "\n".join([text, *(f"WRONG {one}" for one in self.wrong)])


def _png() -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.arange(64, dtype=np.uint8).reshape(8, 8)).save(out, "PNG")
    return out.getvalue()


def _zip() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(8):
            archive.writestr(f"train/{'ab'[number % 2]}/{number}.png", _png())
    return out.getvalue()


def _npz() -> bytes:
    out = io.BytesIO()
    np.savez_compressed(out, x_train=np.eye(6, dtype=np.float32), y_train=np.arange(6) % 2)
    return out.getvalue()


def _parquet(table: pa.Table) -> bytes:
    out = io.BytesIO()
    pq.write_table(table, out)
    return out.getvalue()


def _images() -> bytes:
    rows = [{"bytes": _png(), "path": None}] * 6
    return _parquet(pa.table({"image": rows, "label": [0, 1] * 3}))


_ROWS = {"x": [0.5, 1.5, 2.5, 3.5, 4.5, 5.5], "kind": list("abcabc"), "y": [0, 1, 0, 1, 0, 1]}
_CSV = b"x,kind,y\n" + b"".join(b"%d.5,%c,%d\n" % (i, b"abc"[i % 3], i % 2) for i in range(6))

# name of the format and of the file, parameters, content
FORMATS: list[tuple[str, str, dict[str, object], bytes]] = [
    ("npz", "a.npz", {}, _npz()),
    ("image_folder", "a.zip", {}, _zip()),
    ("hf_images", "train-0.parquet", {}, _images()),
    ("table", "a.csv", {"target": "y"}, _CSV),
    ("table", "a.parquet", {"target": "y"}, _parquet(pa.table(_ROWS))),
    ("text", "a.txt", {}, b"to be or not to be, that is the question. " * 20),
]


def damage(content: bytes, chance: random.Random) -> bytes:
    """Change it in one to four places; one in ten stays as it is."""
    data = bytearray(content)
    if chance.random() < 0.1:
        return content
    changes: list[Callable[[int], None]] = [
        lambda at: data.__setitem__(at, chance.randrange(256)),
        lambda at: data.__setitem__(at, data[at] ^ (1 << chance.randrange(8))),
        lambda at: data.__delitem__(slice(at, at + chance.randrange(1, 64))),
        lambda at: data.__delitem__(slice(at, None)),
        lambda at: data.__setitem__(slice(at, at), data[at : at + chance.randrange(1, 64)]),
        lambda at: data.__setitem__(slice(at, at + 4), b"\xff\xff\xff\x7f"),
    ]
    for _ in range(chance.randrange(1, 5)):
        if data:
            chance.choice(changes)(chance.randrange(len(data)))
    return bytes(data)


def fuzz(client: TestClient, settings: Settings, count: int, seed: int) -> Found:
    """Send ``count`` uploads; then look for what is left of those that were refused."""
    chance, found, kept = random.Random(seed), Found(), set()
    for number in range(count):
        form, name, params, content = FORMATS[number % len(FORMATS)]
        body = damage(content, chance)
        began = time.monotonic()
        response = client.post(
            "/v1/datasets",
            data={"name": "fuzzed", "format": form, "params": json.dumps(params)},
            files={"file": (name, body)},
        )
        seconds = time.monotonic() - began
        found.slowest = max(found.slowest, seconds)
        found.statuses[response.status_code] += 1
        if response.status_code == 201:
            kept.add(response.json()["id"])
        elif response.status_code != 422:
            found.wrong.append(f"upload {number} ({form}): {response.status_code} {response.text}")
        if seconds > SLOW_SECONDS:
            found.wrong.append(f"upload {number} ({form}) took {seconds:.1f} s")
    staged = [path.name for path in (settings.root / "uploads").glob("*")]
    if staged:
        found.wrong.append(f"left in uploads/: {len(staged)}, such as {staged[0]}")
    stored = {path.name for path in (Path(settings.artifacts) / "datasets").glob("*")}
    if stored - kept:
        found.wrong.append(f"stored without a row: {sorted(stored - kept)[:3]}")
    return found
