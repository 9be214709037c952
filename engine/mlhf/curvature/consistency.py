"""Whether products agree with each other, asked of random vectors.

Not of the caller's: zeros, or a direction that does not pass what is wrong, agree emptily.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.pytree_loss import dot, upcast

_Pairs = Sequence[tuple[Tensor, Tensor]]


def normal_like(tensors: Sequence[Tensor], seed: int) -> list[Tensor]:
    """Return normal random tensors of the same forms; the global random state is left alone."""
    own = {d: torch.Generator(d).manual_seed(seed) for d in {t.device for t in tensors}}
    return [
        torch.randn(t.shape, generator=own[t.device], dtype=t.dtype, device=t.device)
        for t in tensors
    ]


def disagree(left: _Pairs, right: _Pairs, nodes: Iterable[Any]) -> bool:
    """Whether Σ⟨a, b⟩ over ``left`` is another number than over ``right``, beyond rounding.

    What is not finite tells nothing, and shows anyway: it counts as agreement.

    Args:
        left: Pairs (a, b), one of each random.
        right: As ``left``.
        nodes: The graph's, in whose types was computed.
    """
    (a, a_size), (b, b_size) = _sum(left), _sum(right)
    tolerance = min(1000 * _precision(nodes), 0.125)
    return bool((a - b).abs() > tolerance * torch.hypot(a_size, b_size))


def _sum(pairs: _Pairs) -> tuple[Tensor, Tensor]:
    """Return Σ⟨a, b⟩, and the size that such a sum has by chance."""
    at = pairs[0][0].device
    total = torch.stack([dot(a, b).to(at) for a, b in pairs]).sum()
    square = torch.stack([(upcast(a) * upcast(b)).square().sum().to(at) for a, b in pairs]).sum()
    return total, square.sqrt()


def _precision(nodes: Iterable[Any]) -> float:
    """Return the relative rounding of the least precise type on the way, as under autocast."""
    metadata = [m for node in nodes for m in getattr(node, "_input_metadata", ())]
    types = {m.dtype for m in metadata if m.dtype.is_floating_point or m.dtype.is_complex}
    eps = max(torch.finfo(dtype).eps for dtype in types)
    if torch.float32 in types and any(m.device.type != "cpu" or _coarse() for m in metadata):
        return max(eps, 2**-10)  # TF32's
    return eps


def _coarse() -> bool:
    try:
        return torch.get_float32_matmul_precision() != "highest"
    except RuntimeError:  # set for some backends, in torch's newer way
        return True
