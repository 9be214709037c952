"""From a batch's gradient to the preconditioned one, by one operator or by torch."""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.damping import Damped, Damping, Scales
from mlhf.optimizers.mlhf.kronecker.penalty import Decay, add_gradient
from mlhf.optimizers.mlhf.kronecker.quadratic_model import Direction, direction


class Preconditioned(NamedTuple):
    """What a step makes of its gradient.

    Attributes:
        b: The gradient, (n,), in the basis.
        damped: The damping, and what is made of it.
        direction: Pb.
        decays: The weight decay of each flattened parameter, (n,), where groups differ.
    """

    b: Tensor
    damped: Damped
    direction: Direction
    decays: Tensor | None


def precondition(
    basis: Basis,
    damping: Damping,
    gradient: Sequence[Tensor],
    parameters: Sequence[Tensor],
    decay: Decay,
    segments: Sequence[tuple[int, float]],
    scales: Scales,
) -> Preconditioned:
    """Return the gradient in the basis, and preconditioned; the running mean of b² moves.

    Args:
        basis: The basis.
        damping: It is updated.
        gradient: Of the loss alone, one tensor like each parameter.
        parameters: θ.
        decay: The weight decay.
        segments: The size of each segment of b, and the factor of its damping.
        scales: Numbers; its ``decay`` is the weight decay where that is one number.
    """
    rotations = None if decay else basis.rotations
    if rotations is not None:
        factors = [factor for _, factor in segments]
        b, damped, flat = damping.from_gradients(
            gradient, rotations, basis.diagonal, factors, scales
        )
        return Preconditioned(b, damped, Direction(damped.direction, basis.clear_flat(flat)), None)
    b = basis.rotate(gradient)
    decays = add_gradient(b, decay, parameters, basis)
    spread = basis.spread(decay) if isinstance(decay, list) else None
    damped = damping.step(b, basis.diagonal, segments, scales, spread)
    return Preconditioned(b, damped, direction(basis, damped.direction), decays)
