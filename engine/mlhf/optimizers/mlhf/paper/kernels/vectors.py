"""Conjugate gradients' vector work on a CPU in few passes over memory, for ``pcg``."""

import ctypes
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.paper.kernels.compiler import NoCompiler, build
from mlhf.optimizers.mlhf.paper.kernels.cpu import CHUNK, threads

_POINTER, _LONG = ctypes.c_void_p, ctypes.c_int64


@functools.cache
def loaded() -> Any:
    """Return the kernels' library, or None where it cannot be had."""
    try:
        found = build(Path(__file__).with_name("vectors.cpp"))
    except NoCompiler:
        return None
    found.pcg_move.argtypes = [*[_POINTER] * 7, *[_LONG] * 3]
    found.pcg_turn.argtypes = [*[_POINTER] * 4, *[_LONG] * 3]
    found.pcg_begin.argtypes = [*[_POINTER] * 4, *[_LONG] * 3]
    for function in (found.pcg_move, found.pcg_turn, found.pcg_begin):
        function.restype = None
    return found


class FusedVectors:
    """As ``mlhf.curvature.pcg.TorchVectors``, for contiguous float32 vectors in memory."""

    @staticmethod
    def can(like: Tensor) -> bool:
        """Whether it works on such vectors here."""
        fits = like.device.type == "cpu" and like.dtype == torch.float32
        return fits and loaded() is not None

    def begin(self, p: Tensor, r: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        pointers = (p.data_ptr(), r.data_ptr(), inverse.data_ptr())
        return self._sums(loaded().pcg_begin, pointers, p)

    def move(
        self, x: Tensor, r: Tensor, p: Tensor, ap: Tensor, alpha: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor]:
        pointers = [v.data_ptr() for v in (x, r, p, ap, inverse, alpha)]
        return self._sums(loaded().pcg_move, pointers, p)

    def turn(self, p: Tensor, r: Tensor, beta: Tensor, inverse: Tensor) -> None:
        n = p.numel()
        pointers = [v.data_ptr() for v in (p, r, inverse, beta)]
        loaded().pcg_turn(*pointers, n, CHUNK, threads(n))

    def _sums(self, run: Any, pointers: Sequence[int], like: Tensor) -> tuple[Tensor, Tensor]:
        n = like.numel()
        sums = torch.empty(-(-n // CHUNK), 2, dtype=torch.float64)
        run(*pointers, sums.data_ptr(), n, CHUNK, threads(n))
        squared, ry = sums.sum(0).to(like.dtype)
        return squared.sqrt(), ry
