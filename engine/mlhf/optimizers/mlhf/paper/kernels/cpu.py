"""The C++ kernel on torch tensors: MLHF's network forward and backward on a CPU."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlhf.optimizers.learned.kinds import Segment
from mlhf.optimizers.mlhf.paper.kernels.compiler import build

_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64
# Coordinates that one thread does at a time: fixed, so that sums do not depend on the number of
# threads, and few, so that these get equal shares.
CHUNK = 1 << 12
_BACKWARD_CHUNK = 1 << 14  # each has sums of its own over all weights
_SMALL = 1 << 15  # below this, waking other threads costs more than it gains

Triple = tuple[Tensor, Tensor, Tensor]


@functools.cache
def loaded() -> Any:
    """Return the kernel's library; raises NoCompiler where it cannot be had."""
    found = build(Path(__file__).with_name("coordinate.cpp"))
    found.coordinate_forward.argtypes = [*[_POINTER] * 8, *[_LONG] * 4, ctypes.c_float]
    found.coordinate_backward.argtypes = [*[_POINTER] * 13, *[_LONG] * 5]
    found.coordinate_forward.restype = found.coordinate_backward.restype = None
    return found


def table(segments: Sequence[Segment]) -> Tensor:
    """Return segments as the kernels read them, (S, 3) int64."""
    rows = [(s.start, s.end, s.kind) for s in segments]
    return torch.tensor(rows, dtype=torch.int64).reshape(-1, 3)


def forward(
    inputs: Triple,
    state: Tensor,
    packed: Tensor,
    segments: Tensor,
    offset: float,
    state_out: Tensor,
    out: Tensor,
) -> None:
    """softplus(network(tanh inputs)) + offset into ``out``, the new state into ``state_out``.

    ``state_out`` may be ``state``. All float32, contiguous, on the CPU.
    """
    n = out.numel()
    loaded().coordinate_forward(
        *(v.data_ptr() for v in inputs), state.data_ptr(), state_out.data_ptr(), out.data_ptr(),
        packed.data_ptr(), segments.data_ptr(), len(segments), n, CHUNK, threads(n), offset,
    )  # fmt: skip


def backward(
    inputs: Triple,
    state: Tensor,
    packed: Tensor,
    segments: Tensor,
    d_out: Tensor,
    d_state_out: Tensor | None,
    needs: Sequence[bool],
) -> tuple[list[Tensor | None], Tensor, Tensor]:
    """Return the gradients of the inputs that need one, of the state, and of ``packed``."""
    n = d_out.numel()
    d_inputs = [torch.empty_like(d_out) if need else None for need in needs]
    d_state = torch.empty_like(state)
    d_packed = torch.zeros(-(-n // _BACKWARD_CHUNK), *packed.shape, dtype=torch.float64)
    loaded().coordinate_backward(
        *(v.data_ptr() for v in inputs), state.data_ptr(), d_out.data_ptr(),
        None if d_state_out is None else d_state_out.data_ptr(),
        *(None if v is None else v.data_ptr() for v in d_inputs), d_state.data_ptr(),
        d_packed.data_ptr(), packed.data_ptr(), segments.data_ptr(), len(segments),
        n, _BACKWARD_CHUNK, threads(n), packed.numel(),
    )  # fmt: skip
    return d_inputs, d_state, d_packed.sum(0).to(packed.dtype)


def threads(n: int) -> int:
    """Return how many threads share the work on n coordinates."""
    return 1 if n <= _SMALL else torch.get_num_threads()
