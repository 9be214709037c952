"""Conversion between lists of tensors and the flat vectors that solvers work on.

Vectors have one dtype, float32 at least: parameters of lower precision, or of several dtypes,
are converted on the way in and out.
"""

from collections.abc import Sequence
from functools import reduce

import torch
from torch import Tensor

_dense = torch._C._nn
_SMALL = 2**16  # elements below which a second copy costs less than finding out how to save it


def flatten(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Return the elements of all tensors as one vector (n,), written to ``out`` if given."""
    parts = [upcast(t) for t in tensors]
    if out is not None or len(parts) == 1:  # of a single one it would be a view
        return torch.cat([t.reshape(-1) for t in parts], out=out)
    size = sum([t.numel() for t in parts])
    if size < _SMALL or all(t.is_contiguous() for t in parts) or len({t.dtype for t in parts}) > 1:
        flat: Tensor = _dense.flatten_dense_tensors(parts)
        return flat
    result = parts[0].new_empty(size)
    torch._foreach_copy_(unflatten(result, parts), parts)
    return result


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return the vector (n,) as tensors of the shapes and dtypes of the given ones.

    They are views of it where the dtype is the same.
    """
    # One call for all, which shows in small steps. It loses the shapes of empty tensors.
    dtype = vector.dtype
    return [
        part if t.dtype is dtype and t.numel() else part.view(t.shape).to(t.dtype)
        for part, t in zip(_dense.unflatten_dense_tensors(vector, list(like)), like, strict=True)
    ]


def vector_like(parameters: Sequence[Tensor]) -> Tensor:
    """Return an empty tensor with the device and dtype of the parameters' flat vector."""
    dtype = reduce(torch.promote_types, {p.dtype for p in parameters}, torch.float32)
    return torch.empty(0, dtype=dtype, device=parameters[0].device)


def upcast(t: Tensor) -> Tensor:
    """Return t in float32 if its dtype is of lower precision, else t itself."""
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t
