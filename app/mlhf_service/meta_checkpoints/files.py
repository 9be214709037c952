"""Read meta-checkpoint files without torch: what they are, and whether they can be used."""

import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlhf.core.errors import DataError
from mlhf.optimizers.learned.families import (
    FAMILIES,
    FORMAT,
    KRONECKER,
    PAPER,
    SHIPPED,
    family_in,
)

MAX_BYTES = 4 * 2**20
_MAX_HEADER = 2**20


@dataclass(frozen=True)
class Described:
    """The header of a file; its ``optimizer`` is one of ``FAMILIES``."""

    optimizer: str
    lineage: dict[str, Any]
    shapes: dict[str, tuple[int, ...]]


def shipped() -> dict[str, Path]:
    """The meta-checkpoints that the product brings: family to file."""
    return dict(SHIPPED)


def in_words(family: str) -> str:
    """What a user asks for to get an optimizer of this family."""
    variants = {KRONECKER: "kronecker", PAPER: "paper"}
    return f"mlhf with variant {variants[family]}" if family in variants else family


def describe(path: Path) -> Described:
    """Read a file's header. Raises DataError where it is not a meta-checkpoint."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > _MAX_HEADER:
                raise DataError("Its header is too large for a meta-checkpoint.")
            header = json.loads(file.read(length))
        metadata = header.pop("__metadata__")
        if metadata["format"] != FORMAT:
            raise DataError(f"It is not a meta-checkpoint of this version ({FORMAT}).")
        lineage = json.loads(metadata["lineage"])
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items()}
        if not isinstance(lineage, dict) or not isinstance(metadata["optimizer"], str):
            raise DataError("Its lineage is not an object.")
        networks = {name.partition(".")[0] for name in shapes}
        return Described(family_in(metadata["optimizer"], networks), lineage, shapes)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(
            "It is not a safetensors file with a meta-checkpoint's metadata (format, optimizer, "
            "lineage): upload one that a meta_train job made."
        ) from None


def check(path: Path) -> Described:
    """Check all of a file: header, names, shapes, values. Raises DataError."""
    found = describe(path)
    if found.optimizer not in FAMILIES:
        raise DataError(f"There is no learned optimizer {found.optimizer!r} here.")
    expected = describe(shipped()[found.optimizer]).shapes
    if found.shapes != expected:
        wrong = sorted(set(found.shapes.items()) ^ set(expected.items()))[0][0]
        raise DataError(
            f"Its tensors are not those of the networks of {in_words(found.optimizer)}: "
            f"see {wrong}."
        )
    import numpy as np
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        tensors = load_file(path)
    except (SafetensorError, ValueError, TypeError) as error:
        raise DataError(f"It cannot be read: {error}") from None
    for name, values in tensors.items():
        if values.dtype != np.float32 or not np.isfinite(values).all():
            raise DataError(f"{name} must be finite float32 numbers.")
    return found
