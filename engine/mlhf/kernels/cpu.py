"""The C++ kernel on torch tensors: MLHF's network forward and backward on a CPU."""

import ctypes
import functools
import itertools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from engine.mlhf.kernels.compiler import build
from engine.mlhf.kinds import Segment

_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64
CHUNK = 1 << 16  # coordinates; fixed, so that sums do not depend on the number of threads
_SMALL = 1 << 15  # below this, handing work to other threads costs more than it gains

Triple = tuple[Tensor, Tensor, Tensor]


@functools.cache
def loaded() -> Any:
    """Return the kernel's library; raises NoCompiler where it cannot be had."""
    found = build(Path(__file__).with_name("coordinate.cpp"))
    found.coordinate_forward.argtypes = [*[_POINTER] * 8, *[_LONG] * 4, ctypes.c_float]
    found.coordinate_backward.argtypes = [*[_POINTER] * 13, *[_LONG] * 4]
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
    run = loaded().coordinate_forward
    pointers = [
        *(v.data_ptr() for v in inputs), state.data_ptr(), state_out.data_ptr(), out.data_ptr(),
        packed.data_ptr(), segments.data_ptr(),
    ]  # fmt: skip
    in_threads(n, lambda begin, end: run(*pointers, len(segments), n, begin, end, offset))


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
    bounds = range(0, n, CHUNK)
    d_packed = torch.zeros(len(bounds), *packed.shape, dtype=torch.float64)
    run = loaded().coordinate_backward
    pointers = [
        *(v.data_ptr() for v in inputs), state.data_ptr(), d_out.data_ptr(),
        None if d_state_out is None else d_state_out.data_ptr(),
        *(None if v is None else v.data_ptr() for v in d_inputs), d_state.data_ptr(),
    ]  # fmt: skip
    rest = [packed.data_ptr(), segments.data_ptr(), len(segments), n]

    def work(begin: int, end: int) -> None:
        for at in range(begin, end, CHUNK):
            sums = d_packed[at // CHUNK].data_ptr()
            run(*pointers, sums, *rest, at, min(at + CHUNK, end))

    in_threads(n, work)
    return d_inputs, d_state, d_packed.sum(0).to(packed.dtype)


def in_threads(n: int, work: Callable[[int, int], None]) -> None:
    """Call ``work(begin, end)`` on whole chunks of [0, n), by as many threads as torch uses."""
    threads = torch.get_num_threads()
    if threads == 1 or n <= _SMALL:
        work(0, n)
        return
    # One thread does neighbouring chunks; ctypes lets go of the interpreter's lock meanwhile.
    chunks = -(-n // CHUNK)
    edges = sorted({chunks * i // threads * CHUNK for i in range(threads)} | {n})
    parts = list(itertools.pairwise(edges))
    for each in [_pool(threads).submit(work, *part) for part in parts]:
        each.result()


@functools.cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="mlhf-kernel")
