"""Between a list of tensors and the flat vector that solvers work on."""

from collections.abc import Sequence

import torch
from torch import Tensor


def flatten(tensors: Sequence[Tensor], out: Tensor | None = None) -> Tensor:
    """Return the tensors' elements as one vector, in ``out`` where given."""
    return torch.cat([t.reshape(-1) for t in tensors], out=out)


def unflatten(vector: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """Return views of the vector, shaped like the given tensors."""
    # This pair has half the overhead of ``split`` and ``view(shape)``, which a small step feels.
    parts = torch.split_with_sizes(vector, [t.numel() for t in like])
    return [part.view_as(t) for part, t in zip(parts, like, strict=True)]
