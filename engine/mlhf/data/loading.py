"""Data sets as tensors, of which the training loop reads batches."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlhf.data import preprocessing
from mlhf.data.arrays import Array, Lazy, Split
from mlhf.data.info import DataInfo
from mlhf.data.specs import DATASETS


class Dataset:
    """A data set in memory (or lazily decoded), with its preprocessing.

    Attributes:
        info: Shapes and sizes.
        preprocessing: What ``batch`` does to raw inputs, as JSON values.
    """

    def __init__(
        self, info: DataInfo, train: "_Held", test: "_Held", preprocessing: dict[str, Any]
    ) -> None:
        self.info = info
        self.preprocessing = preprocessing
        self._splits = {"train": train, "test": test}

    def size(self, split: str) -> int:
        """Return the number of samples of a split, ``train`` or ``test``."""
        return self._splits[split].size

    def batch(
        self, split: str, indices: Tensor, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Tensor]:
        """Return inputs and targets of some samples, preprocessed, on a device.

        Args:
            split: ``train`` or ``test``.
            indices: Sample numbers, int64 on the CPU.

        Returns:
            Inputs as float32 (text: int64), and labels as int64, (B, K) float32 regression
            targets, or (B, T) int64 next tokens.
        """
        return self._splits[split].batch(indices, torch.device(device))


class _Held:
    """One split; what is in memory moves to an accelerator once, at the first batch."""

    size: int

    def __init__(self, size: int) -> None:
        self.size = size
        self._device = torch.device("cpu")

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Tensor]:
        if device != self._device:
            self._move(device)
            self._device = device
        return self._take(indices.to(device))

    def _move(self, device: torch.device) -> None:
        raise NotImplementedError

    def _take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        raise NotImplementedError


class _Samples(_Held):
    """Inputs of equal shape: uint8 images scaled batch by batch, the rest scaled already."""

    def __init__(
        self, inputs: Tensor | Lazy, targets: Tensor, scale: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__(len(targets))
        self._inputs, self._targets, self._scale = inputs, targets, scale

    def _move(self, device: torch.device) -> None:
        if isinstance(self._inputs, Tensor):
            self._inputs = self._inputs.to(device)
        self._targets = self._targets.to(device)
        if self._scale is not None:
            mean, factor = self._scale
            self._scale = mean.to(device), factor.to(device)

    def _take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        if isinstance(self._inputs, Lazy):
            decoded = self._inputs.get(indices.cpu().numpy())
            inputs = torch.from_numpy(decoded).to(indices.device)
        else:
            inputs = self._inputs.index_select(0, indices)
        if self._scale is not None:
            mean, factor = self._scale
            inputs = inputs.to(torch.float32).sub_(mean).mul_(factor)
        return inputs, self._targets.index_select(0, indices)


class _Windows(_Held):
    """Windows of a text's tokens."""

    def __init__(self, tokens: Tensor, starts: Tensor, length: int) -> None:
        super().__init__(len(starts))
        self._tokens, self._starts, self._steps = tokens, starts, torch.arange(length + 1)

    def _move(self, device: torch.device) -> None:
        self._tokens, self._starts = self._tokens.to(device), self._starts.to(device)
        self._steps = self._steps.to(device)

    def _take(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        windows = self._tokens[self._starts[indices, None] + self._steps].to(torch.int64)
        return windows[:, :-1], windows[:, 1:]


def load(name: str, params: dict[str, Any], root: str | Path | None = None) -> Dataset:
    """Read a data set for training.

    Args:
        name: Its family, from ``mlhf.data.specs.DATASETS``.
        params: The family's parameters.
        root: The folder (or file) that holds it, for families that read files.

    Raises:
        SpecError: The parameters are wrong, or ask for more than the files hold.
        DataError: The files are absent, corrupt, or not of this form.
    """
    parsed = DATASETS.parse(name, params)
    arrays = DATASETS[name].read(parsed, None if root is None else Path(root))
    fitted = preprocessing.fit(arrays)
    train, test = (_held(split, arrays.info, fitted) for split in (arrays.train, arrays.test))
    return Dataset(arrays.info, train, test, fitted)


def _held(split: Split, info: DataInfo, fitted: dict[str, Any]) -> _Held:
    if info.kind == "text":
        tokens, starts = torch.from_numpy(split.inputs), torch.from_numpy(split.targets)
        return _Windows(tokens, starts, info.input_shape[0])
    targets = torch.from_numpy(_targets(split, fitted))
    mean, std = np.array(fitted["mean"]), np.array(fitted["std"])
    if not isinstance(split.inputs, Lazy) and split.inputs.dtype != np.uint8:
        return _Samples(
            torch.from_numpy(preprocessing.standardised(split.inputs, mean, std)), targets, None
        )
    column = (len(mean), *(1,) * (len(info.input_shape) - 1))
    scale = tuple(torch.from_numpy(v.reshape(column).astype(np.float32)) for v in (mean, 1 / std))
    inputs = split.inputs if isinstance(split.inputs, Lazy) else torch.from_numpy(split.inputs)
    return _Samples(inputs, targets, (scale[0], scale[1]))


def _targets(split: Split, fitted: dict[str, Any]) -> Array:
    if "target_mean" not in fitted:
        return split.targets
    return preprocessing.standardised(
        split.targets, np.array(fitted["target_mean"]), np.array(fitted["target_std"])
    )
