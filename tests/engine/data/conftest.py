"""Where real data may lie, and small sets written for a test."""

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv
import pytest
from PIL import Image

from tests.data_folder import DATA


@pytest.fixture(scope="session")
def real_data():
    """Return a function to the folder of a real data set; skips the test without it."""

    def folder(name: str) -> Path:
        if not (DATA / name).is_dir():
            pytest.skip(f"no {name} in {DATA}; set MLHF_TEST_DATA")
        return DATA / name

    return folder


def encoded(pixels: np.ndarray, kind: str = "PNG") -> bytes:
    """Return an image (H, W, C) or (H, W) in a file format."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


@pytest.fixture(scope="session")
def encode():
    return encoded


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def images(tmp_path, encode, rng):
    for split, count in (("train", 10), ("val", 3)):
        for name in ("ant", "bee"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (10, 10, 3), dtype=np.uint8)
                (tmp_path / split / name / f"{index}.png").write_bytes(encode(pixels))
    return tmp_path


@pytest.fixture
def sets(tmp_path, images, rng):
    """One small set of each kind: name, parameters, root."""
    x = rng.normal(3, 5, (50, 4))
    np.savez(tmp_path / "values.npz", x=x, y=x @ rng.normal(size=(4, 2)) + 7)
    np.savez(tmp_path / "floats.npz", x=rng.normal(2, 3, (30, 3, 5, 5)), y=np.arange(30) % 3)
    table = pa.table({"a": x[:, 0], "b": ["u", "v"] * 25, "y": x[:, 1]})
    csv.write_csv(table, tmp_path / "t.csv")
    (tmp_path / "input.txt").write_text("hello world, " * 40)
    return {
        "digits": ({}, None),
        "image_folder": ({"size": 8}, images),
        "values": ({}, tmp_path / "values.npz"),
        "floats": ({}, tmp_path / "floats.npz"),
        "table": ({"target": "y"}, tmp_path / "t.csv"),
        "text": ({"sequence_length": 9}, tmp_path / "input.txt"),
    }
