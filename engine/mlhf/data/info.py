"""What a model needs to know of its data."""

from dataclasses import asdict, dataclass
from typing import Any, Literal

Kind = Literal["image", "table", "text"]
Task = Literal["classification", "multilabel", "regression", "language"]


@dataclass(frozen=True)
class DataInfo:
    """Shapes and sizes of a data set, known without loading all of it.

    Attributes:
        kind: What one input is.
        input_shape: Shape of one input without the batch: image (C, H, W); table (F,);
            text (T,) of int64 tokens.
        outputs: Classes; labels of a multi-label task; regression targets; size of the
            vocabulary for text.
        task: What is learned. ``multilabel``: several labels a sample, each yes or no.
        train_samples: Size of the train split, after ``train_samples`` of the parameters.
        test_samples: Size of the test split.
        vocabulary: Number of tokens, for text only.
        class_names: Names in the order of the labels, where known.
    """

    kind: Kind
    input_shape: tuple[int, ...]
    outputs: int
    task: Task
    train_samples: int
    test_samples: int
    vocabulary: int | None = None
    class_names: tuple[str, ...] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values."""
        values = asdict(self)
        values["input_shape"] = list(self.input_shape)
        values["class_names"] = None if self.class_names is None else list(self.class_names)
        return values

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DataInfo":
        """Invert ``to_dict``."""
        names = values.get("class_names")
        return cls(
            **{
                **values,
                "input_shape": tuple(values["input_shape"]),
                "class_names": None if names is None else tuple(names),
            }
        )
