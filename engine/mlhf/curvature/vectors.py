"""Conversion between lists of tensors and the flat vectors that solvers work on."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Return the elements of all tensors as one vector (n,), written to ``out`` if given."""
    return torch.cat([t.reshape(-1) for t in tensors], out=out)


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return views of the vector (n,), shaped like the given tensors."""
    # These two calls have half the overhead of ``split`` and ``view(shape)``, which shows in
    # small steps.
    segments = torch.split_with_sizes(vector, [t.numel() for t in like])
    return [segment.view_as(t) for segment, t in zip(segments, like, strict=True)]
