"""Where the tests find real data sets that the product does not ship."""

import os
from pathlib import Path

import pytest

from mlhf.data import fashion_mnist, idx
from mlhf.data.specs import DATASETS
from tests.machine import BARE

_REPOSITORY = Path(__file__).resolve().parents[1]
_FOLDERS = {"text": "tinyshakespeare"}

DATA = Path(
    "/nonexistent"
    if BARE
    else os.environ.get("MLHF_TEST_DATA", _REPOSITORY.parent / "shared" / "data")
)


def root_or_skip(name: str) -> Path | None:
    """Return the folder of a data set, None if it needs none; skip the test where it is missing."""
    folder = DATA / _FOLDERS.get(name, name)
    if folder.exists():
        return folder
    if DATASETS[name].needs_root:
        pytest.skip(f"{name} is not in {DATA}")
    if name == "fashion_mnist" and not idx.present(fashion_mnist.SYSTEM_FOLDER):
        pytest.skip(f"fashion_mnist is neither in {DATA} nor in {fashion_mnist.SYSTEM_FOLDER}")
    return None
