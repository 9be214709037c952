"""What was understood of an upload: the answer to it says what was guessed, converted, dropped."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, Field

from mlhf.data.arrays import Array
from mlhf.data.info import DataInfo

# Longer lists end here; the counts beside them are of all.
MOST_LISTED = 200
SAMPLE_ROWS = 5

# Called with how many samples of how many are checked.
Progress = Callable[[int, int], None]


class ColumnReport(BaseModel):
    """One column of a table, or one array or column of a file."""

    name: str
    role: Literal["input", "target", "weight", "ignored"]
    type: Literal["number", "boolean", "category", "class", "image", "targets", "other"]
    why: str = Field(description="What the type follows from.")
    inputs: int = Field(0, description="Inputs of the model that the column gives.")
    missing: int = Field(0, description="Values that are missing.")


class ClassReport(BaseModel):
    """One class, with its samples in each split before any subset is chosen."""

    name: str
    train: int
    test: int


class SplitReport(BaseModel):
    """One split."""

    name: Literal["train", "test"]
    samples: int
    source: str = Field(description="The files or the rule that it comes from.")


class Report(BaseModel):
    """What was understood of the files."""

    columns: list[ColumnReport] = []
    label: str | None = Field(None, description="The column or array that holds the labels.")
    classes: list[ClassReport] = Field([], description=f"At most the first {MOST_LISTED}.")
    splits: list[SplitReport] = []
    guessed: list[str] = Field([], description="Choices that a parameter can change.")
    converted: list[str] = Field([], description="What is not read as it is stored.")
    ignored: list[str] = Field([], description="What is in the files and not used.")
    dropped_rows: int = 0
    sample: list[dict[str, Any]] = Field([], description="The first samples, as understood.")


@dataclass(frozen=True)
class Inspection:
    """What a check of all of the content shows.

    Attributes:
        settled: Parameters that the files decided; given with them, they need not be looked
            for again.
    """

    info: DataInfo
    report: Report
    settled: dict[str, Any] = field(default_factory=dict)


def listed(names: Iterable[str], what: str) -> list[str]:
    """Return the first names, and how many more there are."""
    names = list(names)
    more = len(names) - MOST_LISTED
    return names[:MOST_LISTED] + ([f"… and {more} more {what}"] if more > 0 else [])


def class_reports(names: tuple[str, ...], train: Array, test: Array) -> list[ClassReport]:
    """Count the labels of both splits."""
    counts = [np.bincount(labels, minlength=len(names)) for labels in (train, test)]
    return [
        ClassReport(name=name, train=int(counts[0][at]), test=int(counts[1][at]))
        for at, name in enumerate(names[:MOST_LISTED])
    ]


def label_reports(names: tuple[str, ...], train: Array, test: Array) -> list[ClassReport]:
    """Count how often each label of a multi-label task is yes in both splits."""
    return [
        ClassReport(name=name, train=int(train[:, at].sum()), test=int(test[:, at].sum()))
        for at, name in enumerate(names[:MOST_LISTED])
    ]


def held_out_split(fraction: float) -> str:
    """Say where the test samples of files without a test split come from."""
    return f"held out: {fraction:.4g} of the samples, by a fixed random order"
