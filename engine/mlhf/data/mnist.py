"""MNIST."""

from pathlib import Path

from mlhf.data import idx
from mlhf.data.arrays import Arrays
from mlhf.data.files import need_root
from mlhf.data.info import DataInfo
from mlhf.data.params import MnistParams

_NAMES = tuple("0123456789")


def describe(params: MnistParams, root: Path | None) -> DataInfo:
    """Read the headers."""
    return idx.describe(params, need_root(root), _NAMES)


def validate(params: MnistParams, root: Path | None) -> DataInfo:
    """Read everything."""
    return read(params, root).info


def read(params: MnistParams, root: Path | None) -> Arrays:
    """Return images and labels."""
    return idx.read(params, need_root(root), _NAMES)


def digest(root: Path | None) -> str:
    """Return the sha256 of the four files."""
    return idx.digest(need_root(root))
