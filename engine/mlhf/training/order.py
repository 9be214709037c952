"""In which order training sees the samples."""

from collections.abc import Mapping

import torch
from torch import Tensor

from mlhf.core.budget import Epoch
from mlhf.core.seeds import derive


class BatchOrder:
    """Batches of indices, a new permutation each epoch, by the seed and the epoch alone.

    How an epoch divides into batches, ``Epoch`` says.

    Raises:
        DataError: if there are no samples.
    """

    def __init__(self, samples: int, batch_size: int, seed: int) -> None:
        epoch = Epoch(samples, batch_size)
        self._samples = samples
        self._batch_size = batch_size
        self._seed = seed
        self.samples_per_epoch = epoch.samples
        self.steps_per_epoch = epoch.steps
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

    def state_dict(self) -> dict[str, int]:
        return {"epoch": self.epoch, "position": self._position}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        self.epoch = int(state["epoch"])
        self._position = int(state["position"])
        self._permutation = None
