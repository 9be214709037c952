"""The damping of the Kronecker form, and the preconditioned gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

_BETA2 = 0.99
_EPS = 1e-5  # of the loss's scale


class Damped(NamedTuple):
    """What a step needs, each (n,) in the basis.

    Attributes:
        damping: s.
        diagonal: D + s; P is 1 over it.
        direction: Pb.
    """

    damping: Tensor
    diagonal: Tensor
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
        v = self.second_moment = torch.mul(before, _BETA2)
        v.addcmul_(b, b, value=(1 - _BETA2) * fraction)
        correction = (1 - _BETA2 ** (steps + 1)) ** -0.5
        s = v.sqrt().add_(loss_scale * (_EPS / correction))
        sizes, factors = zip(*segments, strict=True)
        if len(set(factors)) == 1:
            s.mul_(correction * factors[0])
        else:
            parts = torch.split_with_sizes(s, sizes)
            torch._foreach_mul_(parts, [correction * factor for factor in factors])
        if decay:
            s.add_(decay)
        damped = torch.add(s, diagonal, alpha=on_diagonal)
        if decays is not None:
            damped.add_(decays)
        return Damped(s, damped, b / damped)
