"""MNIST."""

from pathlib import Path

from engine.data import idx
from engine.data.arrays import Arrays
from engine.data.files import need_root
from engine.data.info import DataInfo
from engine.data.params import MnistParams

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
