"""Parameters of the data set families."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mlhf.core.config import Strict
from mlhf.core.expressions import ExpressionError, parse

Samples = Annotated[int, Field(ge=1, le=2**40, strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
ColumnName = Annotated[str, Field(min_length=1, max_length=1000)]
Side = Annotated[int, Field(ge=4, le=512, strict=True)]
FormulaText = Annotated[str, Field(min_length=1, max_length=2000)]
Bound = Annotated[float, Field(ge=-1e6, le=1e6)]
_MOST_POINTS = 1_000_000
HEAD_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,39}", re.ASCII)
CellText = Annotated[str, Field(max_length=1000)]


class CommonParams(Strict):
    """What every family takes."""

    train_samples: Samples | None = Field(
        default=None,
        description="Use only this many training samples: the first of a fixed random order.",
    )
    test_samples: Samples | None = Field(
        default=None,
        description="Use only this many test samples: the first of a fixed random order.",
    )


class SplitParams(CommonParams):
    """For families of uploads, whose files may hold no test split."""

    rules: Literal[1, 2] = Field(
        default=2,
        description="By which rules whatever is not said is chosen; 1: those of data sets that "
        "were uploaded before the answer to an upload had a report.",
    )

    test_fraction: Fraction = Field(
        default=0.2,
        description="Part held out for test, by a fixed random order, "
        "where the files have no test split of their own.",
    )


class PartParams(CommonParams):
    """For families of which meta-training sees one part and comparisons another."""

    split: Literal["all", "meta", "compare"] = Field(
        default="all",
        description="Part of the training samples: all, the first 60 % (meta), or the last 40 % "
        "(compare). The test samples are the same.",
    )


class DigitsParams(PartParams):
    """scikit-learn's 8x8 digits."""


class FunctionParams(CommonParams):
    """Values of formulas at random points."""

    expressions: Annotated[list[FormulaText], Field(min_length=1, max_length=16)] = Field(
        default=["sin(pi*x1)*sin(pi*x2)"],
        description="One formula an output, in x1, x2, …: + - * / ^, numbers, pi, e, and abs, cos, "
        "cosh, exp, log, sin, sinh, sqrt, tan, tanh.",
    )
    dimension: Annotated[int, Field(ge=1, le=1000, strict=True)] = Field(
        default=2, description="How many variables there are.", validate_default=True
    )
    domain: tuple[Bound, Bound] = Field(
        default=(0.0, 1.0), description="The interval that each variable is drawn from, evenly."
    )
    noise: Annotated[float, Field(ge=0, le=10)] = Field(
        default=0.0,
        description="Deviation of the noise on training targets, relative to that of the values.",
    )
    seed: Annotated[int, Field(ge=0, le=2**31 - 1, strict=True)] = Field(
        default=0, description="Of the points and the noise."
    )

    @field_validator("domain")
    @classmethod
    def _in_order(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not value[0] < value[1]:
            raise ValueError(f"{value[0]:g} is not below {value[1]:g}")
        return value

    @field_validator("train_samples", "test_samples")
    @classmethod
    def _bounded(cls, value: int | None) -> int | None:
        if value is not None and value > _MOST_POINTS:
            raise ValueError(f"at most {_MOST_POINTS:,} points are drawn")
        return value

    @model_validator(mode="after")
    def _formulas(self) -> Self:
        variables = [f"x{i + 1}" for i in range(self.dimension)]
        for text in self.expressions:
            try:
                parse(text, variables)
            except ExpressionError as error:
                raise ValueError(f"the formula {text!r} {error}") from None
        return self


class Cifar10Params(CommonParams):
    """CIFAR-10."""

    size: Literal[32, 16] = Field(
        default=32, description="Side in pixels; 16 averages each 2x2 square."
    )
    split: Literal["all", "meta", "compare"] = Field(
        default="all",
        description="Part of the 50,000 training images: all, the first 30,000 (meta), "
        "or the last 20,000 (compare). The test images are the same.",
    )


class MnistParams(PartParams):
    """MNIST and Fashion-MNIST."""

    size: Literal[28, 14] = Field(
        default=28, description="Side in pixels; 14 averages each 2x2 square."
    )


class ImageParams(SplitParams):
    """How encoded images are decoded."""

    size: Side | tuple[Side, Side] | None = Field(
        default=None,
        description="Side in pixels, or height and width: the image is resized to cover them, "
        "the centre is kept. Default: the size of the files where they agree and it is between "
        "4 and 512.",
    )
    channels: Literal[3, 1] | None = Field(
        default=None, description="3: colour; 1: grey. Default: 1 where all files are grey."
    )
    background: Literal["white", "black", "grey"] = Field(
        default="white", description="What transparent images are laid on."
    )


class HfImagesParams(ImageParams):
    """Images in Parquet files. Where they differ in size, the side is 32."""

    image_column: ColumnName | None = Field(
        default=None, description="Default: `image`, else the first column that holds images."
    )
    label_column: ColumnName | None = Field(
        default=None,
        description="Whole numbers, text, true/false or decimal numbers. Default: a column of "
        "class labels, `label`, `category` or the like, else the only one that can be it.",
    )


class ImageFolderParams(ImageParams):
    """A folder of images for each class. Where the files differ in size, the side is 224."""

    test_split: Literal["val", "valid", "validation", "test"] | None = Field(
        default=None,
        description="The folder of test images. Default: the first of val, valid, validation and "
        "test that is there.",
    )


class CocoParams(ImageParams):
    """Images with boxes, and a COCO document. Where the images differ in size, the side is 128."""

    annotations: ColumnName | None = Field(
        default=None,
        description="The .json file of the (training) images. Default: the only one, or that with "
        "`train` or `instances` in its name.",
    )
    test_annotations: ColumnName | None = Field(
        default=None,
        description="The .json file of the test images. Default: that with `val` or `test` in its "
        "name; without one, images are held out.",
    )


class NpzParams(SplitParams):
    """NumPy arrays."""

    task: Literal["auto", "classification", "multilabel", "regression"] = Field(
        default="auto",
        description="auto: whole-number targets are classes, and so are rows of which one value is "
        "1 and the rest 0; other rows of 0 and 1 are several labels a sample (multilabel).",
    )
    inputs: Literal["auto", "sequence", "tokens"] = Field(
        default="auto",
        description="sequence: (N, T, F), T steps of F numbers, or (N, T); tokens: whole numbers "
        "(N, T), such as of words, which an embedding takes; auto: (N, F) is a table, more axes "
        "are images. Targets of the same pixels, steps or tokens are learned at each of them.",
    )
    ignore_index: Annotated[int, Field(strict=True)] | None = Field(
        default=None,
        description="The label of what is left out of loss and accuracy, such as padding (-100) "
        "or unlabelled pixels (255).",
    )
    sample_weights: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,63}$")] | None = Field(
        default=None,
        description="The array of the samples' weights (N,): `w` means w_train and w_test beside "
        "x_train, or w beside x. They are scaled to a mean of 1 over the training samples.",
    )
    layout: Literal["auto", "chw", "hwc"] = Field(
        default="auto",
        description="Order of the axes of 4-dimensional inputs; auto takes a last axis of "
        "1, 3 or 4 as channels where the second is not one.",
    )
    first_label: Literal["auto", 0, 1] = Field(
        default="auto",
        description="Number of the first class; auto: the smallest label, where that is 0 or 1.",
    )


class TableParams(SplitParams):
    """One CSV or Parquet table."""

    target: ColumnName | Annotated[list[ColumnName], Field(max_length=1000)] = Field(
        description="The column to predict, or several: one-hot classes, labels of 0 and 1, or "
        "numbers."
    )
    task: Literal["auto", "classification", "multilabel", "regression"] = Field(
        default="auto",
        description="auto: text, true/false, and whole numbers with at most 20 distinct "
        "values are classes; other numbers are a regression target. Of several columns: those of "
        "which one is 1 in each row and the rest 0 are classes, others of 0 and 1 are labels of "
        "yes or no (multilabel), and others are numbers.",
    )
    ignore: Annotated[list[ColumnName], Field(max_length=10_000)] = Field(
        default_factory=list, description="Columns left out of the inputs."
    )
    sample_weights: ColumnName | None = Field(
        default=None,
        description="The column of the samples' weights, which is no input. They are scaled to a "
        "mean of 1 over the training samples.",
    )
    categorical: Annotated[list[ColumnName], Field(max_length=10_000)] = Field(
        default_factory=list,
        description="Columns whose values are categories (or classes) even where they look like "
        "numbers.",
    )
    numeric: Annotated[list[ColumnName], Field(max_length=10_000)] = Field(
        default_factory=list,
        description="Columns of digits that are numbers even where some start with a zero, as "
        "007 does; otherwise such digits are a code, and each code is a category (or a class).",
    )
    row_numbers: Literal["ignore", "use"] = Field(
        default="ignore",
        description="A column without a name, or named index, id, Unnamed: 0 or "
        "__index_level_0__, whose values count the rows: leave it out, or use it as an input.",
    )
    missing: Literal["refuse", "drop", "fill"] = Field(
        default="refuse",
        description="Missing values: refuse the table; drop their rows; or fill in the mean of "
        "the training rows (a category that is missing is none of the categories). "
        "Rows without a target are dropped under fill too.",
    )
    missing_values: Annotated[list[CellText], Field(max_length=100)] | None = Field(
        default=None,
        description="Texts that stand for a missing value. Default: the usual ones ('', NA, N/A, "
        "NaN, null, None, -, ?, n/k, …) among numbers, and none among categories.",
    )
    decimal: Literal[".", ","] | None = Field(
        default=None, description="Decimal mark. Default: by the values of the column."
    )
    thousands: Literal[".", ",", "'", " "] | None = Field(
        default=None,
        description="Mark between groups of three digits. Default: by the values of the column.",
    )
    header: bool = Field(
        default=True,
        description="The first line of a CSV file names the columns; if not, they are f0, f1, ….",
    )
    delimiter: Annotated[str, Field(min_length=1, max_length=1)] | None = Field(
        default=None,
        description="Between the cells of a CSV file. Default: the most frequent of , ; tab | in "
        "the first line.",
    )
    encoding: (
        Literal["utf-8", "utf-16", "latin-1", "windows-1252", "iso-8859-15", "shift_jis", "gb18030"]
        | None
    ) = Field(default=None, description="Of a CSV file. Default: UTF-8, or by its byte order mark.")
    skip_lines: Annotated[int, Field(ge=0, le=1000, strict=True)] = Field(
        default=0, description="Lines of a CSV file before the line of names, such as comments."
    )

    @field_validator("target")
    @classmethod
    def _different(cls, target: str | list[str]) -> str | list[str]:
        if not isinstance(target, str) and not target:
            raise ValueError("name at least one column")
        if not isinstance(target, str) and len(set(target)) < len(target):
            raise ValueError("a column is named twice")
        return target

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns to predict."""
        return (self.target,) if isinstance(self.target, str) else tuple(self.target)


class TextParams(PartParams):
    """One UTF-8 text, predicted character by character."""

    sequence_length: Annotated[int, Field(ge=1, le=4096, strict=True)] = Field(
        default=64, description="Characters in one sample; samples do not overlap."
    )
    test_fraction: Fraction = Field(
        default=0.1, description="Part held out for test: the end of the text."
    )
