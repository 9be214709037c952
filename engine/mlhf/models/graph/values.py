"""Values of a graph's arguments: from JSON to what torch takes, and of tensors to text."""

import base64
import math
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mlhf.core.errors import SpecError

_AS_LIST = 64  # values that are written as numbers


def dtype_of(name: str) -> torch.dtype:
    """Return a dtype by its name in a graph."""
    found: torch.dtype = getattr(torch, name)
    return found


def decode(value: Any, look_up: Callable[[str], Any], batch: int, training: bool) -> Any:
    """Return what an argument is for a batch of ``batch`` samples.

    Args:
        value: JSON, as ``mlhf.models.graph.spec`` describes it.
        look_up: From a name to its tensor.
        batch: Samples of the batch.
        training: Whether the network is in training mode.

    Raises:
        SpecError: an object of an unknown kind.
    """
    if isinstance(value, str):
        return look_up(value[1:]) if value.startswith("%") else value
    if isinstance(value, list):
        return [decode(each, look_up, batch, training) for each in value]
    if not isinstance(value, dict):
        return value
    match value:
        case {"batch": int(factor), **rest} if set(rest) <= {"plus"}:
            plus = rest.get("plus", 0)
            if isinstance(plus, int):
                return factor * batch + plus
        case {"training": on, "evaluation": off} if len(value) == 2:
            return on if training else off
        case {"dtype": str(name)} if len(value) == 1:
            found = getattr(torch, name, None)
            if isinstance(found, torch.dtype):
                return found
        case {"float": "inf" | "-inf" | "nan" as number} if len(value) == 1:
            return float(number)
        case {"slice": [start, stop, step]} if len(value) == 1:
            return slice(*(decode(each, look_up, batch, training) for each in (start, stop, step)))
        case {"ellipsis": True} if len(value) == 1:
            return ...
        case {"tuple": list(items)} if len(value) == 1:
            return tuple(decode(each, look_up, batch, training) for each in items)
    raise SpecError("", f"{str(value)[:100]} is no value: see the format of graphs")


def encode_tensor(tensor: Tensor) -> Any:
    """Return a tensor's values as JSON (``Buffer.data``)."""
    tensor = tensor.detach().cpu().contiguous()
    finite = not tensor.is_floating_point() or bool(tensor.isfinite().all())
    if tensor.numel() <= _AS_LIST and finite and not tensor.is_complex():
        return tensor.flatten().tolist()
    raw = tensor.flatten().view(torch.uint8).numpy().tobytes()
    return base64.b64encode(zlib.compress(raw, 9)).decode()


def decode_tensor(data: Any, shape: list[int], dtype: str) -> Tensor:
    """Invert ``encode_tensor``; never makes more than the shape asks for.

    Raises:
        SpecError: the data are not of this shape and dtype.
    """
    kind, count = dtype_of(dtype), math.prod(shape)
    size = count * kind.itemsize
    try:
        if isinstance(data, list):
            if len(data) != count:
                raise ValueError(f"{len(data)} values for {count}")
            return torch.tensor(data, dtype=kind).reshape(shape)
        expander = zlib.decompressobj()
        raw = expander.decompress(base64.b64decode(data, validate=True), size + 1)
        if len(raw) != size:
            raise ValueError(f"{len(raw)} bytes for {size}")
        if dtype == "bool" and raw.strip(b"\0\1"):
            raise ValueError("a byte of a bool is neither 0 nor 1")
        flat = torch.from_numpy(np.frombuffer(raw, np.uint8).copy())
        return flat.view(kind).reshape(shape)
    except (ValueError, TypeError, RuntimeError, OverflowError, zlib.error) as error:
        raise SpecError(
            "", f"its data do not fit its shape and dtype: {str(error)[:200]}"
        ) from None
