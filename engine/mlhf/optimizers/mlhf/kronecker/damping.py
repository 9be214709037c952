"""The damping of the Kronecker form, and the preconditioned gradient."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.kernels import steps
from mlhf.optimizers.mlhf.kernels.steps import Numbers, Rotations

_BETA2 = 0.99
_EPS = 1e-5  # of the loss's scale


class Damped(NamedTuple):
    """What a step needs, each (n,) in the basis.

    Attributes:
        damping: s.
        diagonal: D + s; P is 1 over it.
        direction: Pb.
        products: ⟨Pb, b⟩ and ⟨b, b⟩, (2,).
    """

    damping: Tensor
    diagonal: Tensor
    direction: Tensor
    products: Tensor


class Scales(NamedTuple):
    """Numbers that the damping is made of.

    Attributes:
        steps: Before this one.
        loss_scale: g, a scalar.
        fraction: The batch's size relative to the usual one.
        on_diagonal: Factor of D.
        decay: The weight decay, part of s.
    """

    steps: int
    loss_scale: Tensor
    fraction: float = 1.0
    on_diagonal: float = 1.0
    decay: float = 0.0

    @property
    def numbers(self) -> Numbers:
        """They, as the operators take them."""
        correction = (1 - _BETA2 ** (self.steps + 1)) ** -0.5
        added = (1 - _BETA2) * self.fraction
        return Numbers(_BETA2, added, _EPS, correction, self.on_diagonal, self.decay)


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
        scales: Scales,
        decays: Tensor | None = None,
    ) -> Damped:
        """Update v.

        Args:
            b: The gradient, (n,).
            diagonal: D, (n,).
            segments: The size of each segment of the vector, and the factor of its damping.
            scales: The numbers.
            decays: Weight decays that are part of P's damping alone, (n,).
        """
        numbers = scales.numbers
        if decays is None and steps.fits(b):
            self.second_moment, s, damped_diagonal, direction, products = steps.damp(
                b, self.second_moment, diagonal, scales.loss_scale, segments, numbers
            )
            return Damped(s, damped_diagonal, direction, products)
        before = torch.zeros_like(b) if self.second_moment is None else self.second_moment
        v = self.second_moment = torch.mul(before, _BETA2)
        v.addcmul_(b, b, value=numbers.added)
        s = v.sqrt().add_(scales.loss_scale * (_EPS / numbers.correction))
        sizes, factors = zip(*segments, strict=True)
        parts = torch.split_with_sizes(s, sizes)
        torch._foreach_mul_(parts, [numbers.correction * factor for factor in factors])
        if scales.decay:
            s.add_(scales.decay)
        damped_diagonal = torch.add(s, diagonal, alpha=scales.on_diagonal)
        if decays is not None:
            damped_diagonal.add_(decays)
        direction = b / damped_diagonal
        products = torch.stack([torch.dot(direction, b), torch.dot(b, b)])
        return Damped(s, damped_diagonal, direction, products)

    def from_gradients(
        self,
        gradients: Sequence[Tensor],
        rotations: Rotations,
        diagonal: Tensor,
        factors: Sequence[float],
        scales: Scales,
    ) -> tuple[Tensor, Damped, Tensor]:
        """Rotate the gradients, update v, and rotate what becomes of them back, all at once.

        Args:
            gradients: One for each parameter.
            rotations: Of the basis.
            diagonal: D, (n,).
            factors: Of each segment's damping.
            scales: The numbers.

        Returns:
            The gradient b in the basis, what ``step`` returns, and Pb as the flattened parameters
            have it.
        """
        b, v, s, damped_diagonal, direction, flat, products = steps.direction(
            [gradients[i] for i in rotations.order],
            rotations,
            self.second_moment,
            diagonal,
            scales.loss_scale,
            factors,
            scales.numbers,
        )
        self.second_moment = v
        return b, Damped(s, damped_diagonal, direction, products), flat
