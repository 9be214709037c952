"""What a client is shown of data sets."""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, Field

from mlhf.data.report import Report


class DataInfoView(BaseModel):
    """Shapes and sizes of a data set."""

    kind: Literal["image", "table", "text"]
    input_shape: list[int] = Field(description="Of one sample: (C, H, W), (F,) or (T,).")
    outputs: int = Field(
        description="Classes, labels, regression targets, or size of the vocabulary."
    )
    task: Literal["classification", "multilabel", "regression", "language"]
    train_samples: int
    test_samples: int
    vocabulary: int | None = None
    class_names: list[str] | None = None


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

    id: str = Field(description="What a job names as `dataset.name`.")
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
