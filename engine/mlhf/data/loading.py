"""Data sets as tensors, of which the training loop reads batches."""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mlhf.data import preprocessing
from mlhf.data.arrays import Array, Arrays, Lazy, Split
from mlhf.data.cache import DataCache, Decoded, key_of
from mlhf.data.info import DataInfo
from mlhf.data.specs import DATASETS


class Dataset:
    """A data set in memory (or lazily decoded), with its preprocessing.

    Attributes:
        info: Shapes and sizes.
        preprocessing: What ``batch`` does to raw inputs, as JSON values.
        sha256: Of the files' content, where it is known already.
    """

    def __init__(
        self,
        info: DataInfo,
        train: "_Held",
        test: "_Held",
        preprocessing: dict[str, Any],
        sha256: str | None = None,
    ) -> None:
        self.info = info
        self.preprocessing = preprocessing
        self.sha256 = sha256
        self._splits = {"train": train, "test": test}

    def size(self, split: str) -> int:
        """Return the number of samples of a split, ``train`` or ``test``."""
        return self._splits[split].size

    def batch(
        self, split: str, indices: Tensor, device: torch.device | str = "cpu"
    ) -> tuple[Tensor, Any]:
        """Return inputs and targets of some samples, preprocessed, on a device.

        Args:
            split: ``train`` or ``test``.
            indices: Sample numbers, int64 on the CPU.

        Returns:
            Inputs as float32, or what was asked for (text: int64), and labels as int64, (B, K)
            regression targets like the inputs, or (B, T) int64 next tokens; at positions, labels
            (B, H, W) or (B, T) and numbers (B, K, H, W) or (B, T, K); boxes (B, M, 5); of several
            heads a dict of such. Where samples have weights, a pair of these and the weights (B,).
        """
        return self._splits[split].batch(indices, torch.device(device))


class _Held:
    """One split; what is in memory moves to an accelerator once, at the first batch."""

    size: int

    def __init__(self, size: int) -> None:
        self.size = size
        self._device = torch.device("cpu")

    def batch(self, indices: Tensor, device: torch.device) -> tuple[Tensor, Any]:
        if device != self._device:
            self._move(device)
            self._device = device
        return self._take(indices.to(device))

    def _move(self, device: torch.device) -> None:
        raise NotImplementedError

    def _take(self, indices: Tensor) -> tuple[Tensor, Any]:
        raise NotImplementedError


class _Samples(_Held):
    """Inputs of equal shape: uint8 images scaled batch by batch, the rest scaled already.

    Targets are a tensor, a dict of tensors, or a pair of these and the samples' weights.
    """

    def __init__(
        self, inputs: Tensor | Lazy, targets: Any, scale: tuple[Tensor, Tensor] | None
    ) -> None:
        super().__init__(len(pytree.tree_leaves(targets)[0]))
        self._inputs, self._targets, self._scale = inputs, targets, scale

    def _move(self, device: torch.device) -> None:
        if isinstance(self._inputs, Tensor):
            self._inputs = self._inputs.to(device)
        self._targets = pytree.tree_map(lambda t: t.to(device), self._targets)
        if self._scale is not None:
            mean, factor = self._scale
            self._scale = mean.to(device), factor.to(device)

    def _take(self, indices: Tensor) -> tuple[Tensor, Any]:
        if isinstance(self._inputs, Lazy):
            decoded = self._inputs.get(indices.cpu().numpy())
            inputs = torch.from_numpy(decoded).to(indices.device)
        else:
            inputs = self._inputs.index_select(0, indices)
        if self._scale is not None:
            mean, factor = self._scale
            inputs = inputs.to(mean.dtype).sub_(mean).mul_(factor)
        return inputs, pytree.tree_map(lambda t: t.index_select(0, indices), self._targets)


class _Windows(_Held):
    """Windows of a text's tokens."""

    def __init__(self, tokens: Tensor, starts: Tensor, length: int) -> None:
        super().__init__(len(starts))
        self._tokens, self._starts, self._steps = tokens, starts, torch.arange(length + 1)

    def _move(self, device: torch.device) -> None:
        self._tokens, self._starts = self._tokens.to(device), self._starts.to(device)
        self._steps = self._steps.to(device)

    def _take(self, indices: Tensor) -> tuple[Tensor, Any]:
        windows = self._tokens[self._starts[indices, None] + self._steps].to(torch.int64)
        return windows[:, :-1], windows[:, 1:]


def load(
    name: str,
    params: dict[str, Any],
    root: str | Path | None = None,
    *,
    sha256: str | None = None,
    cache: DataCache | None = None,
    dtype: str = "float32",
    raw_targets: Collection[str] = (),
    warn: Callable[[str], None] = lambda _: None,
) -> Dataset:
    """Read a data set for training.

    Args:
        name: Its family, from ``mlhf.data.specs.DATASETS``.
        params: The family's parameters.
        root: The folder (or file) that holds it, for families that read files.
        sha256: What ``mlhf.data.specs.digest`` would return, where it is known.
        cache: Where what was decoded is kept and looked for. The values are the same bit for bit.
        dtype: Of inputs and targets that are real numbers.
        raw_targets: Heads whose targets stay in their own units; a single target has the name
            ``""``.
        warn: Called with a sentence where the cache cannot be written to.

    Raises:
        SpecError: The parameters are wrong, or ask for more than the files hold.
        DataError: The files are absent, corrupt, or not of this form.
    """
    parsed = DATASETS.parse(name, params)
    spec, folder = DATASETS[name], None if root is None else Path(root)
    if cache is None or not spec.costly:
        arrays = spec.read(parsed, folder)
        return _dataset(arrays, preprocessing.fit(arrays, raw_targets), sha256, dtype)
    sha256 = sha256 or spec.digest(folder)
    params = parsed.model_dump(mode="json")
    if dtype != "float32":
        params["dtype"] = dtype
    if raw_targets:
        params["raw_targets"] = sorted(raw_targets)
    key = key_of(name, params, sha256)
    found = cache.get(key)
    if found is None:
        arrays = spec.read(parsed, folder)
        fitted = preprocessing.fit(arrays, raw_targets)
        if isinstance(arrays.train.inputs, Lazy) or isinstance(arrays.test.inputs, Lazy):
            return _dataset(arrays, fitted, sha256, dtype)  # too large to be held
        found = _decoded(arrays, fitted, dtype)
        try:
            cache.put(key, found)
        except OSError as error:
            reason = error.strerror or str(error)
            warn(f"The decoded data set is not kept for further runs: {reason}.")
    return _restored(found, sha256, dtype)


def _dataset(arrays: Arrays, fitted: dict[str, Any], sha256: str | None, dtype: str) -> Dataset:
    average = _average(arrays.train)
    train, test = (
        _held(
            _inputs(split, arrays.info, fitted, dtype),
            _joined(_targets(split, arrays.info, fitted, dtype, average)),
            arrays.info,
            fitted,
            dtype,
        )
        for split in (arrays.train, arrays.test)
    )
    return Dataset(arrays.info, train, test, fitted, sha256)


def _decoded(arrays: Arrays, fitted: dict[str, Any], dtype: str) -> Decoded:
    tensors: dict[str, Tensor] = {}
    average = _average(arrays.train)
    for name, split in (("train", arrays.train), ("test", arrays.test)):
        inputs = _inputs(split, arrays.info, fitted, dtype)
        assert isinstance(inputs, Tensor)
        targets = _targets(split, arrays.info, fitted, dtype, average)
        tensors |= {f"{name}_inputs": inputs}
        tensors |= {f"{name}_{key}": each for key, each in targets.items()}
    return Decoded(arrays.info, fitted, tensors)


def _restored(decoded: Decoded, sha256: str, dtype: str) -> Dataset:
    info, fitted, tensors = decoded.info, decoded.preprocessing, decoded.tensors

    def split(name: str) -> _Held:
        own = {k.removeprefix(f"{name}_"): t for k, t in tensors.items() if k.startswith(name)}
        inputs = own.pop("inputs")
        return _held(inputs, _joined(own), info, fitted, dtype)

    return Dataset(info, split("train"), split("test"), fitted, sha256)


def _inputs(split: Split, info: DataInfo, fitted: dict[str, Any], dtype: str) -> Tensor | Lazy:
    """Return inputs: images as bytes; tables and sequences scaled; text as tokens."""
    if isinstance(split.inputs, Lazy):
        return split.inputs
    if info.kind == "text" or split.inputs.dtype == np.uint8:
        return torch.from_numpy(split.inputs)
    scale = preprocessing.scaled_steps if info.kind == "sequence" else preprocessing.standardised
    mean, std = np.array(fitted["mean"]), np.array(fitted["std"])
    return torch.from_numpy(scale(split.inputs, mean, std, dtype))


def _held(
    inputs: Tensor | Lazy, targets: Any, info: DataInfo, fitted: dict[str, Any], dtype: str
) -> _Held:
    if info.kind == "text" and isinstance(inputs, Tensor) and inputs.ndim == 1:
        return _Windows(inputs, targets, info.input_shape[0])
    if isinstance(inputs, Tensor) and (info.kind == "text" or inputs.dtype != torch.uint8):
        return _Samples(inputs, targets, None)
    mean, std = np.array(fitted["mean"]), np.array(fitted["std"])
    column = (len(mean), *(1,) * (len(info.input_shape) - 1))
    scale = tuple(torch.from_numpy(v.reshape(column).astype(dtype)) for v in (mean, 1 / std))
    return _Samples(inputs, targets, (scale[0], scale[1]))


def _targets(
    split: Split, info: DataInfo, fitted: dict[str, Any], dtype: str, average: float
) -> dict[str, Tensor]:
    """Return ``targets``, or ``targets:<head>`` of each head, and ``weights`` where there are."""
    if isinstance(split.targets, dict):
        units = fitted["targets"]
        arrays = {
            f"targets:{n}": _scaled(t, info, units.get(n, {}), dtype)
            for n, t in split.targets.items()
        }
    else:
        arrays = {"targets": _scaled(split.targets, info, fitted, dtype)}
    if split.weights is not None:
        arrays["weights"] = (split.weights / average).astype(dtype)
    return {name: torch.from_numpy(each) for name, each in arrays.items()}


def _average(train: Split) -> float:
    """The mean weight of the training samples, by which all are divided."""
    return 1.0 if train.weights is None else float(train.weights.mean())


def _joined(targets: dict[str, Tensor]) -> Any:
    """Return targets as a batch has them."""
    heads = {n.removeprefix("targets:"): t for n, t in targets.items() if n.startswith("targets:")}
    joined: Any = heads or targets["targets"]
    return (joined, targets["weights"]) if "weights" in targets else joined


def _scaled(targets: Array, info: DataInfo, fitted: dict[str, Any], dtype: str) -> Array:
    if "target_mean" not in fitted:
        return targets
    mean, std = np.array(fitted["target_mean"]), np.array(fitted["target_std"])
    steps = info.kind != "image" and targets.ndim > 2
    scale = preprocessing.scaled_steps if steps else preprocessing.standardised
    return scale(targets, mean, std, dtype)
