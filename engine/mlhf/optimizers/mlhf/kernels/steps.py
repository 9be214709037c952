"""A step of the Kronecker form on a CPU: rotations, damping and averages in few passes.

The same in torch takes thirty calls and more, which are most of a small network's step. Numbers
may differ from torch's in the last bits.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlhf.optimizers.mlhf.kernels import library


class Rotations(NamedTuple):
    """The rotations of all blocks, as the operator takes them.

    Attributes:
        bases: Of each block in turn: U_L, and U_R with its transpose, where there are such.
        layout: Of each block: out, in (with its bias), whether there are a bias, U_L and U_R, and
            where weight and bias begin in the flattened parameters.
        order: The parameters' indices, in the order of blocks.
    """

    bases: list[Tensor]
    layout: list[int]
    order: list[int]


class Numbers(NamedTuple):
    """What the damping is made of beside vectors.

    Attributes:
        kept: β₂.
        added: What b² is multiplied by in the moment.
        epsilon: ε.
        correction: Of √v.
        on_diagonal: Factor of D.
        decay: The weight decay.
    """

    kept: float
    added: float
    epsilon: float
    correction: float
    on_diagonal: float
    decay: float


def fits(like: Tensor) -> bool:
    """Whether the operators take such vectors, and are there."""
    return like.is_cpu and like.dtype is torch.float32 and not _obstacle()


def load() -> None:
    """Have the operators ready where they are built already: a compiler may take seconds."""
    if library.is_built():
        _obstacle()


@functools.cache
def _obstacle() -> str:
    from mlhf.optimizers.mlhf.kernels import operators  # noqa: F401  # what they are called

    return library.obstacle()


def direction(
    gradients: list[Tensor],
    rotations: Rotations,
    moment: Tensor | None,
    diagonal: Tensor,
    scale: Tensor,
    factors: Sequence[float],
    numbers: Numbers,
) -> tuple[Tensor, ...]:
    """Return b, v, s, D + s, Pb, U Pb as the flattened parameters have it, and the products.

    Args:
        gradients: In the order of blocks.
        rotations: Of all blocks.
        moment: v, (n,); None for zeros.
        diagonal: D, (n,).
        scale: What ε is multiplied by, a scalar.
        factors: Of each block's damping.
        numbers: The others.

    Returns:
        Vectors (n,); the products are ⟨Pb, b⟩ and ⟨b, b⟩, in double precision.
    """
    found: tuple[Tensor, ...] = torch.ops.mlhf.kronecker_direction.default(
        gradients, rotations.bases, rotations.layout, moment, diagonal, scale, factors, numbers
    )
    return found


def damp(
    b: Tensor,
    moment: Tensor | None,
    diagonal: Tensor,
    scale: Tensor,
    segments: Sequence[tuple[int, float]],
    numbers: Numbers,
) -> tuple[Tensor, ...]:
    """Return v, s, D + s, Pb and the products, as ``direction`` does, for b in the basis.

    Args:
        b: The gradient, (n,).
        moment: v, (n,); None for zeros.
        diagonal: D, (n,).
        scale: What ε is multiplied by, a scalar.
        segments: Each one's size, and the factor of its damping.
        numbers: The others.
    """
    sizes, factors = zip(*segments, strict=True)
    found: tuple[Tensor, ...] = torch.ops.mlhf.kronecker_damp.default(
        b, moment, diagonal, scale, sizes, factors, numbers
    )
    return found


def products(vectors: Sequence[Tensor], s: Tensor, d: Tensor, b: Tensor) -> Tensor:
    """Return ⟨q_i, s q_j⟩, ⟨q_i, d q_j⟩ and ⟨q_i, b⟩ side by side, (m, 2m + 1), in float64."""
    found: Tensor = torch.ops.mlhf.kronecker_products.default(vectors, s, d, b)
    return found


def combine(
    factors: Sequence[float], first: Sequence[Tensor], second: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the linear combinations of two lists of vectors, by the same factors."""
    found: Any = torch.ops.mlhf.kronecker_combine.default(first, second, factors)
    return found[0], found[1]


def advance(
    factors: Sequence[float],
    first: Sequence[Tensor],
    second: Sequence[Tensor],
    parameters: Sequence[Tensor],
    means: Sequence[Tensor],
    factor: float,
    weight: float,
) -> tuple[Tensor, Tensor]:
    """Combine as ``combine`` does; move the parameters by the second, and their means to them.

    Args:
        factors: Of the vectors.
        first: Vectors (n,).
        second: Vectors (n,) as the flattened parameters have them.
        parameters: θ, to which ``factor`` times their combination is added.
        means: θ̄, one like each parameter.
        factor: Of the step.
        weight: θ̄ moves by this part of its distance to the new θ.
    """
    found: Any = torch.ops.mlhf.kronecker_advance.default(
        first, second, factors, parameters, means, factor, weight
    )
    torch.autograd.graph.increment_version(list(parameters))
    return found[0], found[1]
