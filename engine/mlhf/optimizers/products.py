"""Products of dense matrices, by the faster of torch's libraries."""

import torch
import torch.nn.functional as F
from torch import Tensor

LARGE = 1 << 23  # from so many multiplications on, oneDNN is worth its copies


def product(a: Tensor, b: Tensor) -> Tensor:
    """Return ABᵀ for A (m, k) and B (n, k), without graph.

    For float32 on a CPU torch uses MKL, which on processors not made by Intel stays with AVX2;
    oneDNN uses AVX-512 there too, at twice the speed.
    """
    large = len(a) * a.shape[1] * len(b) >= LARGE
    if large and a.dtype == b.dtype == torch.float32 and a.device.type == "cpu" and _ONEDNN:
        rows = a.detach().contiguous().to_mkldnn()
        result: Tensor = F.linear(rows, b.detach().contiguous()).to_dense()
        return result
    return a.detach() @ b.detach().T


_ONEDNN: bool = torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
