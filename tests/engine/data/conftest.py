"""Where real data may lie, and small sets written for a test."""

import io
from pathlib import Path

import numpy as np
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
