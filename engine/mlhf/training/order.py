"""In which order training sees the samples."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from mlhf.core.errors import DataError
from mlhf.core.seeds import derive


class BatchOrder:
    """Batches of indices, a new permutation each epoch, by the seed and the epoch alone.

    The last batch of an epoch may be smaller. If it would be a single sample it is left out,
    since batch normalization cannot train on one.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        if samples < 1:
            raise DataError("The training split is empty.")
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        rest = samples % batch_size
        leave_out = rest == 1 and samples > 1 and batch_size > 1
        self.samples_per_epoch = samples - 1 if leave_out else samples
        self.steps_per_epoch = math.ceil(self.samples_per_epoch / batch_size)
        self.epoch = 0
        self._position = 0  # batches taken of this epoch
        self._permutation: Tensor | None = None

    def next(self) -> Tensor:
        """Return the next batch's indices."""
        if self._position == self.steps_per_epoch:
            self.epoch += 1
            self._position = 0
            self._permutation = None
        if self._permutation is None:
            generator = torch.Generator().manual_seed(derive(self._seed, "order", self.epoch))
            self._permutation = torch.randperm(self._samples, generator=generator)
        start = self._position * self._batch_size
        end = min(start + self._batch_size, self.samples_per_epoch)
        self._position += 1
        return self._permutation[start:end]

    def steps_for_samples(self, samples: int) -> int:
        """Return after how many steps at least that many samples were seen."""
        epochs, rest = divmod(samples, self.samples_per_epoch)
        return epochs * self.steps_per_epoch + math.ceil(rest / self._batch_size)

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch = int(state["epoch"])
        self._position = int(state["position"])
        self._permutation = None
