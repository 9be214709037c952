"""Which samples loss and accuracy are measured on while a run trains.

By default a fixed part of each split, so that evaluation takes about a tenth of the training time
at most. How large it is follows from the sizes of the splits and from how often is evaluated, and
which samples it holds from the size of the split: neither time, nor machine, optimizer, batch size
or seed has a say, so the curves of runs on the same data are of the same samples.
"""

from typing import Any

import torch
from torch import Tensor

from mlhf.data.arrays import fixed_order
from mlhf.training.config import Evaluation
from mlhf.training.evaluation import Samples, spread

# What a training sample costs at least, in samples that are only measured: a forward and a
# backward pass against a forward pass in larger batches (bench/evaluation_cost.py).
TRAINING_COST = 1.25
# Sets of no more samples are measured whole.
WHOLE = 4096
# At least so many of a split are measured: fewer would tell too little.
LEAST = 512


def measured(evaluation: Evaluation, train: int, test: int) -> dict[str, int]:
    """Return how many samples of splits of these sizes are measured while a run trains."""
    sizes = {"train": train, "test": test}
    wanted = evaluation.samples
    if evaluation.max_samples is not None:
        wanted = evaluation.max_samples
    if wanted == "all" or (wanted == "auto" and train + test <= WHOLE):
        return sizes
    if wanted == "auto":
        affordable = evaluation.share * TRAINING_COST * evaluation.every_epochs * train
        return {
            split: min(size, max(LEAST, int(affordable * size / (train + test))))
            for split, size in sizes.items()
        }
    return {split: min(size, wanted) for split, size in sizes.items()}


class MeasuredSamples:
    """The samples of each split that are measured, and those that only the end adds.

    Attributes:
        subset: The indices of what is measured while the run trains, ascending.
        rest: The others, which are measured at the end too; empty where nothing is added.
    """

    def __init__(self, evaluation: Evaluation, data: Samples) -> None:
        sizes = {split: data.size(split) for split in ("train", "test")}
        counts = measured(evaluation, sizes["train"], sizes["test"])
        self.subset: dict[str, Tensor] = {}
        self.rest: dict[str, Tensor] = {}
        for split, size in sizes.items():
            if evaluation.max_samples is not None or counts[split] == size:
                self.subset[split] = spread(size, counts[split])
                continue
            order = torch.from_numpy(fixed_order(size))
            self.subset[split] = order[: counts[split]].sort().values
            self.rest[split] = order[counts[split] :].sort().values
        self._sizes = sizes

    @property
    def partial(self) -> bool:
        """Whether the end measures more."""
        return bool(self.rest)

    def describe(self) -> dict[str, Any]:
        """Return for each split how many samples are measured, of how many, as JSON values."""
        return {
            split: {"samples": len(rows), "of": self._sizes[split]}
            for split, rows in self.subset.items()
        }
