"""Fashion-MNIST, from a folder or from Debian's package dataset-fashion-mnist."""

from pathlib import Path

from mlhf.core.errors import DataError
from mlhf.data import idx
from mlhf.data.arrays import Arrays
from mlhf.data.info import DataInfo
from mlhf.data.params import MnistParams

SYSTEM_FOLDER = Path("/usr/share/datasets/fashion-mnist")

_NAMES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)


def describe(params: MnistParams, root: Path | None) -> DataInfo:
    """Read the headers."""
    return idx.describe(params, _folder(root), _NAMES)


def validate(params: MnistParams, root: Path | None) -> DataInfo:
    """Read everything."""
    return read(params, root).info


def read(params: MnistParams, root: Path | None) -> Arrays:
    """Return images and labels."""
    return idx.read(params, _folder(root), _NAMES)


def digest(root: Path | None) -> str:
    """Return the sha256 of the four files."""
    return idx.digest(_folder(root))


def _folder(root: Path | None) -> Path:
    for folder in (root, SYSTEM_FOLDER):
        if folder is not None and idx.present(folder):
            return folder
    raise DataError(
        "Fashion-MNIST's IDX files are not in the folder of the data set; put them there, or "
        "install the package dataset-fashion-mnist (Debian, Ubuntu)"
    )
