"""The step itself, and the average of the weights, in one pass over them."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.kernels import steps
from mlhf.optimizers.mlhf.kronecker.average import RunningAverage
from mlhf.optimizers.mlhf.kronecker.quadratic_model import Direction
from mlhf.optimizers.mlhf.kronecker.subspace import Array


def advance(
    parameters: Sequence[Tensor],
    average: RunningAverage,
    coefficients: Array,
    directions: Sequence[Direction],
    lr: float,
    number: int,
) -> Direction | None:
    """Return d = Σ c_i d_i after θ ← θ − lr d and θ̄'s update; None, undone, where it cannot be.

    It can for float32 on a CPU, contiguous, from the second step on.

    Args:
        parameters: θ.
        average: θ̄.
        coefficients: c, (m,), finite, such that the step makes no parameter infinite.
        directions: d_i.
        lr: Factor of the step.
        number: This step's, counted from 1.
    """
    means = average.mean
    if means is None or not steps.fits(directions[0].in_eigenbasis):
        return None
    if not all(t.dtype is torch.float32 and t.is_contiguous() for t in (*parameters, *means)):
        return None
    moved = steps.advance(
        coefficients.tolist(),
        [d.in_eigenbasis for d in directions],
        [d.in_parameters for d in directions],
        parameters,
        means,
        -lr,
        average.weight(number),
    )
    return Direction(*moved)
