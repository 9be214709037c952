"""Conjugate gradients' vector work on a CPU in few passes over memory, for ``pcg``."""

import torch
from torch import Tensor

from mlhf.curvature.pcg import ratio
from mlhf.optimizers.mlhf.kernels import library, operators  # noqa: F401


class FusedVectors:
    """``mlhf.curvature.pcg.Vectors`` for contiguous float32 vectors in memory.

    Args:
        inverse: P, shape (n,).
        y: Not used: y is never stored.
    """

    _ry: Tensor  # ⟨r, y⟩, which each pass over r finds too

    @staticmethod
    def can(like: Tensor) -> bool:
        """Whether it works on such vectors here."""
        fits = like.device.type == "cpu" and like.dtype == torch.float32
        return fits and not library.obstacle()

    def __init__(self, inverse: Tensor, y: Tensor) -> None:
        self._inverse = inverse

    def begin(self, p: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        norm = self._norm(torch.ops.mlhf.pcg_begin.default(p, r, self._inverse), p)
        return norm, self._ry

    def move(self, x: Tensor, r: Tensor, p: Tensor, ap: Tensor, alpha: Tensor) -> Tensor:
        return self._norm(torch.ops.mlhf.pcg_move.default(x, r, p, ap, self._inverse, alpha), p)

    def update_direction(self, p: Tensor, r: Tensor, ry: Tensor) -> Tensor:
        torch.ops.mlhf.pcg_direction.default(p, r, self._inverse, ratio(self._ry, ry))
        return self._ry

    def _norm(self, by_chunk: Tensor, like: Tensor) -> Tensor:
        """Return ‖r‖ of the sums of ‖r‖² and ⟨r, y⟩ over chunks; keep ⟨r, y⟩."""
        sums = by_chunk.sum(0).to(like.dtype)
        self._ry = sums[1]
        return sums[0].sqrt()
