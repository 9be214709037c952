"""The damping of the Kronecker form, and the preconditioned gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.kronecker.in_cache import piece_size, pieces, pieces_of_segments

_BETA2 = 0.99
_EPS = 1e-5  # of the loss's scale


class Damped(NamedTuple):
    """What a step needs, each (n,) in the basis.

    Attributes:
        damping: s.
        inverse: P = 1 / (D + s).
        direction: Pb.
    """

    damping: Tensor
    inverse: Tensor
    direction: Tensor


class Damping:
    """s = factor · (√v̂ + 1e-5 g), from the running mean v of b².

    Attributes:
        second_moment: v, (n,); replaced by each step, not changed (``StepGuard``).
    """

    def __init__(self) -> None:
        self.second_moment: Tensor | None = None

    def step(
        self,
        b: Tensor,
        diagonal: Tensor,
        segments: Sequence[tuple[int, float]],
        *,
        steps: int,
        loss_scale: Tensor,
        fraction: float = 1.0,
        on_diagonal: float = 1.0,
        decay: float = 0.0,
        decays: Tensor | None = None,
    ) -> Damped:
        """Update v.

        Args:
            b: The gradient, (n,).
            diagonal: D, (n,).
            segments: The size of each segment of the vector, and the factor of its damping.
            steps: Before this one.
            loss_scale: g.
            fraction: The batch's size relative to the usual one.
            on_diagonal: Factor of D.
            decay: The weight decay, part of s.
            decays: Weight decays that are part of P's damping alone, (n,).
        """
        before = torch.zeros_like(b) if self.second_moment is None else self.second_moment
        sizes, factors = zip(*segments, strict=True)

        def work(
            vectors: Sequence[Tensor],
            within: tuple[Sequence[int], Sequence[float]],
            out: Sequence[Tensor | None],
        ) -> list[Tensor]:
            v_before, gradient, d, *more = vectors
            v = torch.mul(v_before, _BETA2, out=out[0])
            v.addcmul_(gradient, gradient, value=(1 - _BETA2) * fraction)
            s = torch.sqrt(v, out=out[1]).mul_(correction).add_(floor)
            torch._foreach_mul_(torch.split_with_sizes(s, within[0]), within[1])
            if decay:
                s.add_(decay)
            inverse = torch.add(s, d, alpha=on_diagonal, out=out[2])
            for each in more:
                inverse.add_(each)
            return [v, s, inverse, torch.mul(inverse.reciprocal_(), gradient, out=out[3])]

        correction = (1 - _BETA2 ** (steps + 1)) ** -0.5
        floor = _EPS * loss_scale
        given = [before, b, diagonal] if decays is None else [before, b, diagonal, decays]
        size = piece_size(b)
        if size >= b.numel():
            new = work(given, (sizes, factors), [None] * 4)
        else:
            new = [torch.empty_like(b) for _ in range(4)]
            cut = pieces_of_segments(sizes, factors, size)
            for each, within in zip(pieces(*given, *new), cut, strict=True):
                work(each[:-4], within, each[-4:])
        self.second_moment = new[0]
        return Damped(*new[1:])
