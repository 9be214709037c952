"""The registry of data set families. Imports no torch, and a family's readers only when used."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mlhf.core.config import Strict
from mlhf.core.errors import DataError
from mlhf.core.registry import Registry, Spec
from mlhf.data.arrays import Arrays
from mlhf.data.info import DataInfo
from mlhf.data.params import (
    Cifar10Params,
    CocoParams,
    DigitsParams,
    FunctionParams,
    HfImagesParams,
    ImageFolderParams,
    MnistParams,
    NpzParams,
    TableParams,
    TextParams,
)
from mlhf.data.pde.params import PdeParams
from mlhf.data.report import Inspection, Progress, Report

__all__ = [
    "DATASETS",
    "DataInfo",
    "DatasetSpec",
    "describe",
    "digest",
    "inspect",
    "validate",
]


class Family(Protocol):
    """What the module of a family offers; ``params`` are its own."""

    def describe(self, params: Any, root: Path | None) -> DataInfo:
        """Read headers and metadata only, wherever the format allows it."""

    def validate(self, params: Any, root: Path | None) -> DataInfo:
        """Read everything once, in bounded memory."""

    def inspect(
        self, params: Any, root: Path | None, progress: Progress | None = None
    ) -> Inspection:
        """As validate, with a report; offered by the families of uploads."""

    def read(self, params: Any, root: Path | None) -> Arrays:
        """Read what training needs."""

    def digest(self, root: Path | None) -> str:
        """Return the sha256 of the content, in hex."""


@dataclass(frozen=True)
class DatasetSpec(Spec[Family]):
    """One family of data sets; its implementation is a module that offers what ``Family`` says.

    Attributes:
        builtin: Offered in the catalogue by name; the others are formats of uploads.
        needs_root: Reads files from a folder that the service has to name.
        costly: Reading it takes longer than the kept result of having read it.
        residuals: It has an equation in place of samples, and a step takes all of its points.
    """

    builtin: bool = False
    needs_root: bool = True
    costly: bool = True
    residuals: bool = False

    def describe(self, params: Strict, root: Path | None) -> DataInfo:
        """Return shapes and sizes. Raises DataError or SpecError."""
        return self.load().describe(params, self._checked(root))

    def validate(self, params: Strict, root: Path | None) -> DataInfo:
        """Check all of the content. Raises DataError or SpecError."""
        return self.load().validate(params, self._checked(root))

    def inspect(
        self, params: Strict, root: Path | None, progress: Progress | None = None
    ) -> Inspection:
        """Check all of the content, and report it. Raises DataError or SpecError."""
        family, root = self.load(), self._checked(root)
        if not hasattr(family, "inspect"):
            return Inspection(family.validate(params, root), Report())
        return family.inspect(params, root, progress)

    def read(self, params: Strict, root: Path | None) -> Arrays:
        """Return the arrays to train on. Raises DataError or SpecError."""
        return self.load().read(params, self._checked(root))

    def digest(self, root: Path | None) -> str:
        """Return the sha256 of the content. Raises DataError."""
        return self.load().digest(self._checked(root))

    def _checked(self, root: Path | None) -> Path | None:
        if root is None and self.needs_root:
            raise DataError(f"the data set {self.name} needs a folder with its files")
        if root is not None and self.needs_root and not root.exists():
            raise DataError(f"the folder of the data set {self.name} does not exist")
        return root


DATASETS = Registry(
    "data set",
    (
        DatasetSpec(
            "digits",
            "scikit-learn's 1,797 handwritten digits, 8x8, 10 classes.",
            DigitsParams,
            "mlhf.data.digits",
            builtin=True,
            needs_root=False,
            costly=False,
        ),
        DatasetSpec(
            "cifar10",
            "CIFAR-10: 60,000 colour images, 32x32, 10 classes; binary batches or Parquet.",
            Cifar10Params,
            "mlhf.data.cifar10",
            builtin=True,
        ),
        DatasetSpec(
            "mnist",
            "MNIST: 70,000 handwritten digits, 28x28, 10 classes; IDX files.",
            MnistParams,
            "mlhf.data.mnist",
            builtin=True,
        ),
        DatasetSpec(
            "fashion_mnist",
            "Fashion-MNIST: 70,000 pieces of clothing, 28x28, 10 classes; IDX files.",
            MnistParams,
            "mlhf.data.fashion_mnist",
            builtin=True,
            needs_root=False,
        ),
        DatasetSpec(
            "function",
            "Values of formulas at random points: regression surrogates.",
            FunctionParams,
            "mlhf.data.function",
            builtin=True,
            needs_root=False,
            costly=False,
        ),
        DatasetSpec(
            "pde",
            "A differential equation, solved by making a network's residuals small.",
            PdeParams,
            "mlhf.data.pde.family",
            builtin=True,
            needs_root=False,
            costly=False,
            residuals=True,
        ),
        DatasetSpec(
            "image_folder",
            "Images in train/<class>/ and val/<class>/ (the layout of ILSVRC2012).",
            ImageFolderParams,
            "mlhf.data.image_folder",
        ),
        DatasetSpec(
            "hf_images",
            "Images and labels in Parquet files, as the Hugging Face Hub stores them.",
            HfImagesParams,
            "mlhf.data.hf_images",
        ),
        DatasetSpec(
            "coco",
            "Images with boxes and classes: a zip of images and a COCO document (JSON).",
            CocoParams,
            "mlhf.data.coco",
        ),
        DatasetSpec(
            "npz",
            "NumPy arrays x_train, y_train, x_test, y_test (or x and y) in one .npz file.",
            NpzParams,
            "mlhf.data.npz",
        ),
        DatasetSpec(
            "table",
            "One CSV or Parquet table with numeric and categorical columns.",
            TableParams,
            "mlhf.data.table",
        ),
        DatasetSpec(
            "text",
            "One UTF-8 text file; a model predicts its next character.",
            TextParams,
            "mlhf.data.text",
        ),
    ),
)


def describe(name: str, params: dict[str, Any], root: str | Path | None = None) -> DataInfo:
    """Return shapes and sizes, reading headers and metadata only where the format allows it.

    Raises:
        SpecError: The parameters are wrong, or ask for more than the files hold.
        DataError: The files are absent or not of this form.
    """
    parsed = DATASETS.parse(name, params)
    return DATASETS[name].describe(parsed, _path(root))


def validate(name: str, params: dict[str, Any], root: str | Path | None = None) -> DataInfo:
    """Check all of the content once, without torch and in bounded memory. Raises as describe."""
    parsed = DATASETS.parse(name, params)
    return DATASETS[name].validate(parsed, _path(root))


def inspect(
    name: str,
    params: dict[str, Any],
    root: str | Path | None = None,
    progress: Progress | None = None,
) -> Inspection:
    """Check all of the content of an upload once, as validate does, and report it.

    Args:
        progress: Called now and then with how many samples of how many are checked.
    """
    parsed = DATASETS.parse(name, params)
    return DATASETS[name].inspect(parsed, _path(root), progress)


def digest(name: str, params: dict[str, Any], root: str | Path | None = None) -> str:
    """Return the sha256 of the files' content (or the library's data), in hex."""
    DATASETS.parse(name, params)
    return DATASETS[name].digest(_path(root))


def _path(root: str | Path | None) -> Path | None:
    return None if root is None else Path(root)
