"""Parameters of the data set families."""

from typing import Annotated, Literal

from pydantic import Field

from mlhf.core.config import Strict

Samples = Annotated[int, Field(ge=1, le=2**40, strict=True)]
Fraction = Annotated[float, Field(gt=0, lt=1)]
ColumnName = Annotated[str, Field(min_length=1, max_length=1000)]
Side = Annotated[int, Field(ge=4, le=512, strict=True)]
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


class NpzParams(SplitParams):
    """NumPy arrays."""

    task: Literal["auto", "classification", "multilabel", "regression"] = Field(
        default="auto",
        description="auto: whole-number targets are classes, and so are rows of which one value is "
        "1 and the rest 0; other rows of 0 and 1 are several labels a sample (multilabel).",
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

    target: ColumnName = Field(description="The column to predict.")
    task: Literal["auto", "classification", "regression"] = Field(
        default="auto",
        description="auto: text, true/false, and whole numbers with at most 20 distinct "
        "values are classes; other numbers are a regression target.",
    )
    ignore: Annotated[list[ColumnName], Field(max_length=10_000)] = Field(
        default_factory=list, description="Columns left out of the inputs."
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


class TextParams(PartParams):
    """One UTF-8 text, predicted character by character."""

    sequence_length: Annotated[int, Field(ge=1, le=4096, strict=True)] = Field(
        default=64, description="Characters in one sample; samples do not overlap."
    )
    test_fraction: Fraction = Field(
        default=0.1, description="Part held out for test: the end of the text."
    )
