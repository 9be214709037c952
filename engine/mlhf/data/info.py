"""What a model and a loss need to know of their data."""

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Kind = Literal["image", "table", "text", "sequence"]
Task = Literal["classification", "multilabel", "regression", "language", "detection", "heads"]


_ABSENT: dict[str, Any] = {
    "positions": None,
    "weighted": False,
    "least": None,
    "boxes": None,
    "heads": {},
}


@dataclass(frozen=True)
class TargetInfo:
    """One of several targets of a sample.

    Attributes:
        task: classification, multilabel or regression.
        outputs: Classes, labels, or numbers at each position.
        positions: Where a sample has a target each: () one in all; (T,) or (H, W).
        least: The smallest value of regression targets.
        class_names: In the order of the labels, where known.
    """

    task: Task
    outputs: int
    positions: tuple[int, ...] = ()
    least: float | None = None
    class_names: tuple[str, ...] | None = None


@dataclass(frozen=True)
class DataInfo:
    """Shapes and sizes of a data set, known without loading all of it.

    Attributes:
        kind: What one input is.
        input_shape: Shape of one input without the batch: image (C, H, W); table (F,);
            text (T,) of int64 tokens; sequence (T, F).
        outputs: Classes; labels of a multi-label task; regression targets; size of the
            vocabulary for text; of several heads, numbers in all.
        task: What is learned. ``multilabel``: several labels a sample, each yes or no.
            ``detection``: boxes with classes. ``heads``: several targets a sample.
        train_samples: Size of the train split, after ``train_samples`` of the parameters.
        test_samples: Size of the test split.
        vocabulary: Number of tokens, for text only.
        class_names: Names in the order of the labels, where known.
        positions: Where a sample has a target each: () one in all, (T,) each token or step,
            (H, W) each pixel. None: () or, for text, each token.
        weighted: Whether the samples have weights.
        least: The smallest value of regression targets, where known.
        boxes: Of detection, the most boxes of an image.
        heads: Of several targets, each by its name.
    """

    kind: Kind
    input_shape: tuple[int, ...]
    outputs: int
    task: Task
    train_samples: int
    test_samples: int
    vocabulary: int | None = None
    class_names: tuple[str, ...] | None = None
    positions: tuple[int, ...] | None = None
    weighted: bool = False
    least: float | None = None
    boxes: int | None = None
    heads: dict[str, TargetInfo] = field(default_factory=dict, hash=False)

    @property
    def target_positions(self) -> tuple[int, ...]:
        """Where a sample has a target each."""
        if self.positions is not None:
            return self.positions
        return self.input_shape if self.kind == "text" else ()

    @property
    def targets(self) -> dict[str, TargetInfo]:
        """Each target by its name; a single one has the name ``""``."""
        if self.heads:
            return self.heads
        task: Task = "classification" if self.task == "language" else self.task
        own = TargetInfo(task, self.outputs, self.target_positions, self.least, self.class_names)
        return {"": own}

    def to_dict(self) -> dict[str, Any]:
        """Return it as JSON values; what most data sets have not is left out."""
        values: dict[str, Any] = _listed(asdict(self))
        values["heads"] = {name: _listed(head) for name, head in values["heads"].items()}
        return {k: v for k, v in values.items() if k not in _ABSENT or v != _ABSENT[k]}

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "DataInfo":
        """Invert ``to_dict``."""
        heads = {n: TargetInfo(**_tupled(head)) for n, head in values.get("heads", {}).items()}
        return cls(**{**_tupled(values), "heads": heads})


def _listed(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _tupled(values: dict[str, Any]) -> dict[str, Any]:
    return {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
