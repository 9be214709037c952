"""Conjugate gradients' vector work on a CPU in few passes over memory, for ``pcg``."""

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.paper.kernels import library, operators  # noqa: F401


class FusedVectors:
    """``mlhf.curvature.pcg.Vectors`` for contiguous float32 vectors in memory."""

    @staticmethod
    def can(like: Tensor) -> bool:
        """Whether it works on such vectors here."""
        fits = like.device.type == "cpu" and like.dtype == torch.float32
        return fits and not library.obstacle()

    def begin(self, p: Tensor, r: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        return self._totals(torch.ops.mlhf.pcg_begin.default(p, r, inverse), p)

    def move(
        self, x: Tensor, r: Tensor, p: Tensor, ap: Tensor, alpha: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor]:
        return self._totals(torch.ops.mlhf.pcg_move.default(x, r, p, ap, inverse, alpha), p)

    def turn(self, p: Tensor, r: Tensor, beta: Tensor, inverse: Tensor) -> None:
        torch.ops.mlhf.pcg_direction.default(p, r, inverse, beta)

    def _totals(self, by_chunk: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        squared, ry = by_chunk.sum(0).to(like.dtype)
        return squared.sqrt(), ry
