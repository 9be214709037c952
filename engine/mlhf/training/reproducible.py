"""Process-wide settings that make runs reproducible."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def reproducible(threads: int | None, device: torch.device) -> Iterator[None]:
    """Use deterministic algorithms, a fixed number of threads and a separate random state.

    Denormal numbers count as zero. Once layers have died, gradients and products are full of
    them, and a processor takes up to a hundred times as long for each: steps took three to eight
    times as long (docs/research.md#denormal-numbers).

    Afterwards everything is as before, so that a run inside a larger program leaves no trace.
    The exception is threads of torch's pool that started meanwhile: they go on flushing denormal
    numbers to zero.

    Args:
        threads: CPU threads; None leaves their number alone.
        device: Where the run computes.
    """
    if device.type == "cuda":
        # Read by cuBLAS when it is first used; without it, products may differ between runs.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fill: Any = torch.utils.deterministic
    flushed = flushes_denormals()
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        fill.fill_uninitialized_memory,
        torch.backends.cudnn.benchmark,
    )
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        if threads is not None:
            torch.set_num_threads(threads)
        # On a GPU a few layers have no deterministic kernel: better a warning than no run.
        _use_deterministic_algorithms(True, warn_only=device.type != "cpu")
        fill.fill_uninitialized_memory = False  # costs time, and nothing reads such memory
        torch.backends.cudnn.benchmark = False
        torch.set_flush_denormal(True)
        try:
            yield
        finally:
            torch.set_num_threads(before[0])
            _use_deterministic_algorithms(before[1], warn_only=before[2])
            fill.fill_uninitialized_memory = before[3]
            torch.backends.cudnn.benchmark = before[4]
            torch.set_flush_denormal(flushed)


def _use_deterministic_algorithms(enabled: bool, *, warn_only: bool) -> None:
    """Do what torch's function of this name does, without importing its compiler.

    That import takes longer than all else that a short run does. Where the compiler is used, it
    is told (mlhf/paper/compiled.py).
    """
    if "torch._inductor" in sys.modules:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    else:
        mode = ("warn" if warn_only else "error") if enabled else "default"
        torch.set_deterministic_debug_mode(mode)


def flushes_denormals() -> bool:
    """Return whether this thread flushes denormal numbers to zero."""
    return not float(torch.tensor(torch.finfo(torch.float32).tiny) / 2)
