"""What a client is shown of data sets."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from mlhf.data.info import Kind, Task
from mlhf.data.report import Report


class TargetView(BaseModel):
    """One of several targets of a sample."""

    task: Task
    outputs: int
    positions: list[int] = Field(description="Where a sample has a target each; none: one in all.")
    least: float | None = Field(None, description="The smallest value of regression targets.")
    class_names: list[str] | None = None


class DataInfoView(BaseModel):
    """Shapes and sizes of a data set."""

    kind: Kind
    input_shape: list[int] = Field(description="Of one sample: (C, H, W), (F,), (T,) or (T, F).")
    outputs: int = Field(
        description="Classes, labels, regression targets, or size of the vocabulary; of several "
        "heads, numbers in all."
    )
    task: Task
    train_samples: int
    test_samples: int
    vocabulary: int | None = None
    class_names: list[str] | None = None
    positions: list[int] | None = Field(
        None, description="Where a sample has a target each: (H, W) pixels or (T,) steps."
    )
    weighted: bool = Field(False, description="Whether the samples have weights.")
    least: float | None = Field(None, description="The smallest value of regression targets.")
    boxes: int | None = Field(None, description="Of detection, the most boxes of an image.")
    heads: dict[str, TargetView] = Field({}, description="Of several targets, each by its name.")


Stage = Literal["waiting", "unpacking", "checking", "storing"]


class UploadProgress(BaseModel):
    """How far an upload is."""

    received: int = Field(description="Bytes of its files.")
    stage: Stage = Field(
        description="`waiting`: not all of it has arrived, or it has been answered."
    )
    done: int = Field(description="Samples that are checked.")
    total: int = Field(description="Of so many; 0 until that is known.")


class DatasetView(BaseModel):
    """A data set that a job can name by its id."""

    id: str = Field(description="What a job names as `dataset.name`, if not its name.")
    name: str
    source: Literal["builtin", "uploaded"]
    format: str
    description: str
    available: bool
    reason: str | None = Field(description="Why it is not available, and how to mend that.")
    params: dict[str, Any] = Field(
        description="Given at the upload, or decided by its files; a job can overlay them."
    )
    params_schema: dict[str, Any] = Field(description="JSON Schema of `dataset.params`.")
    info: DataInfoView | None
    report: Report | None = Field(
        None,
        description="What was understood of an upload's files. Not in lists, nor kept of uploads "
        "before version 0.2.",
    )
    sha256: str | None
    size: int | None
    created_at: datetime | None
