"""The result of meta-training: a learned optimizer's weights, and how they were made."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from mlhf.core.atomic_files import Written, write
from mlhf.core.errors import DataError
from mlhf.optimizers.learned.families import FORMAT, KRONECKER, SHIPPED, UNTRAINED, family_in
from mlhf.optimizers.learned.kinds import KINDS

_UNREADABLE = (OSError, ValueError, KeyError, RecursionError, safetensors.SafetensorError)


@dataclass(frozen=True)
class MetaCheckpoint:
    """The weights of a learned optimizer's networks.

    Attributes:
        optimizer: Whose they are, a family: ``mlhf``, ``mlhf_paper`` or ``l2l``.
        weights: Each network's, by its name.
        lineage: How they were made (tasks, data digests, iterations, seed, command), as JSON
            values. ``kinds`` lists the parameter kinds that occurred in meta-training.
    """

    optimizer: str
    weights: Mapping[str, Mapping[str, Tensor]]
    lineage: Mapping[str, Any] = field(default_factory=dict)

    @property
    def kinds(self) -> list[int]:
        """The kinds that occurred, by the lineage, which in an uploaded file may say anything."""
        kinds = self.lineage.get("kinds")
        if not isinstance(kinds, list):
            return []
        return [k for k in kinds if isinstance(k, int) and k in range(len(KINDS))]

    def save(self, path: str | Path) -> Written:
        """Write it as one safetensors file, the lineage in its metadata."""
        tensors = {
            f"{network}.{name}": tensor.detach().cpu().contiguous()
            for network, values in self.weights.items()
            for name, tensor in values.items()
        }
        metadata = {
            "format": FORMAT,
            "optimizer": self.optimizer,
            "lineage": json.dumps(dict(self.lineage), sort_keys=True),
        }
        return write(Path(path), safetensors.torch.save(tensors, metadata))

    def into(self, networks: Mapping[str, nn.Module]) -> None:
        """Copy the weights into an optimizer's networks.

        Kinds that meta-training never saw get the weights of the nearest kind that it did see:
        a kernel those of another kernel, a bias those of another bias, else those of the first.

        Raises:
            DataError: where names or shapes do not fit, or weights are not finite numbers.
        """
        _check_weights(self.weights, networks)
        if not isinstance(self.lineage, Mapping):
            raise DataError(
                "The meta-checkpoint's lineage should be an object with the history of its "
                f"training, not {self.lineage!r}."
            )
        kinds = self.kinds
        for name, network in networks.items():
            values = self.weights[name]
            source = [_nearest(k, kinds) for k in range(len(KINDS))]
            network.load_state_dict(
                {k: v[source] if v.ndim and len(v) == len(KINDS) else v for k, v in values.items()}
            )


def _check_weights(
    weights: Mapping[str, Mapping[str, Tensor]], networks: Mapping[str, nn.Module]
) -> None:
    """Check weights before any is copied.

    Raises:
        DataError: naming the first fault.
    """
    expected = {
        f"{network}.{name}": tuple(value.shape)
        for network, module in networks.items()
        for name, value in module.state_dict().items()
    }
    found = {
        f"{network}.{name}": value
        for network, values in weights.items()
        for name, value in values.items()
    }
    for name in [n for n in expected if n not in found]:
        raise DataError(f"The meta-checkpoint does not fit: it lacks {name}.")
    for name in [n for n in found if n not in expected]:
        raise DataError(f"The meta-checkpoint does not fit: it has {name}, which is not needed.")
    for name, value in found.items():
        if tuple(value.shape) != expected[name]:
            raise DataError(
                f"The meta-checkpoint does not fit: {name} has shape {tuple(value.shape)}, not "
                f"{expected[name]}."
            )
        if not value.is_floating_point():
            raise DataError(
                f"The meta-checkpoint's {name} should be floating-point numbers, not {value.dtype}."
            )
        if not bool(torch.isfinite(value).all()):
            raise DataError(f"The meta-checkpoint's {name} holds NaN or infinity.")


def load_meta_checkpoint(path: str | Path, optimizer: str = KRONECKER) -> MetaCheckpoint:
    """Read a meta-checkpoint of the given family; ``default`` is the one that is shipped.

    Raises:
        DataError: where there is none, or it is another optimizer's.
    """
    if path == "default":
        path = SHIPPED[optimizer]
    path = Path(path)
    weights: dict[str, dict[str, Tensor]] = {}
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise DataError(f"{path.name} is not a meta-checkpoint of this version.")
            for key in file.keys():  # noqa: SIM118
                network, _, name = key.partition(".")
                weights.setdefault(network, {})[name] = file.get_tensor(key)
            lineage = json.loads(metadata["lineage"])
            family = family_in(str(metadata["optimizer"]), weights)
    except _UNREADABLE as error:
        raise DataError(f"The meta-checkpoint {path.name} cannot be read: {error}") from error
    if family != optimizer:
        raise DataError(f"The meta-checkpoint {path.name} is for {family}, not for {optimizer}.")
    if not isinstance(lineage, dict):
        raise DataError(f"The meta-checkpoint {path.name} has no lineage: {lineage!r}.")
    return MetaCheckpoint(family, weights, lineage)


def load_weights(
    networks: Mapping[str, nn.Module],
    meta_checkpoint: str | Path | MetaCheckpoint | None,
    optimizer: str,
) -> None:
    """Copy a meta-checkpoint's weights into fresh networks.

    Args:
        networks: An optimizer's networks, by name.
        meta_checkpoint: One that is loaded, the path of a file, ``"default"`` for the shipped
            one, or None to leave the networks untrained.
        optimizer: The family that a file has to be of.

    Raises:
        DataError: where the file cannot be read, is of another family, or does not fit.
        ValueError: where ``meta_checkpoint`` is none of these.
    """
    if isinstance(meta_checkpoint, str | Path):
        meta_checkpoint = load_meta_checkpoint(meta_checkpoint, optimizer)
    if meta_checkpoint is None:
        return
    if not isinstance(meta_checkpoint, MetaCheckpoint):
        raise ValueError(
            f"meta_checkpoint={meta_checkpoint!r} is not allowed: it should be 'default', the "
            "path of a file, a MetaCheckpoint, or None"
        )
    family = family_in(meta_checkpoint.optimizer, meta_checkpoint.weights)
    if family != optimizer:
        raise DataError(f"The meta-checkpoint is for {family}, not for {optimizer}.")
    meta_checkpoint.into(networks)


def source_of(name: str) -> str | None:
    """Return the argument of ``load_weights`` for the name that a configuration gives."""
    return None if name == UNTRAINED else name


# Each kind's substitutes, the nearest first (indices into kinds.KINDS).
_SUBSTITUTES = ((2, 4), (3, 5), (0, 4), (1, 5), (2, 0), (3, 1))


def _nearest(kind: int, trained: Sequence[int]) -> int:
    if not trained or kind in trained:
        return kind
    return next((k for k in _SUBSTITUTES[kind] if k in trained), trained[0])
