"""Checks on random vectors that products agree with each other.

The caller's vectors would not do: zeros, or a direction that misses the faulty operation,
agree without meaning anything.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.pytree_loss import dot
from mlhf.curvature.vectors import upcast

_Pairs = Sequence[tuple[Tensor, Tensor]]


def normal_like(tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Return standard normal tensors like the given ones, without touching the global RNG."""
    generators = {d: torch.Generator(d).manual_seed(seed) for d in {t.device for t in tensors}}
    return [
        torch.randn(t.shape, generator=generators[t.device], dtype=t.dtype, device=t.device)
        for t in tensors
    ]


def disagree(left: _Pairs, right: _Pairs, nodes: Iterable[Any]) -> bool:
    """Whether Σ⟨a, b⟩ over ``left`` and over ``right`` differ by more than rounding.

    Sums that are not finite prove nothing, and show anyway: they count as agreement.

    Args:
        left: Pairs (a, b) of tensors of one shape, one of each pair random.
        right: As ``left``.
        nodes: The graph's nodes, in whose dtypes the sums were computed.
    """
    (a, a_size), (b, b_size) = _sum(left), _sum(right)
    tolerance = min(1000 * _precision(nodes), 0.125)
    return bool((a - b).abs() > tolerance * torch.hypot(a_size, b_size))


def _sum(pairs: _Pairs) -> tuple[Tensor, Tensor]:
    """Return Σ⟨a, b⟩, and the size of such a sum for random signs, both scalars."""
    at = pairs[0][0].device
    total = torch.stack([dot(a, b).to(at) for a, b in pairs]).sum()
    square = torch.stack([(upcast(a) * upcast(b)).square().sum().to(at) for a, b in pairs]).sum()
    return total, square.sqrt()


def _precision(nodes: Iterable[Any]) -> float:
    """Return the eps of the least precise dtype among the nodes, such as autocast's."""
    metadata = [m for node in nodes for m in getattr(node, "_input_metadata", ())]
    types = {m.dtype for m in metadata if m.dtype.is_floating_point or m.dtype.is_complex}
    eps = max(torch.finfo(dtype).eps for dtype in types)
    if torch.float32 in types and any(m.device.type != "cpu" or _allows_tf32() for m in metadata):
        return max(eps, 2**-10)  # TF32's
    return eps


def _allows_tf32() -> bool:
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set for some backends, in torch's newer way
        return True
