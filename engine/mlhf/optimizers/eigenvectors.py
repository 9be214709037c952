"""Eigenvectors of a running mean of outer products, which leave alone what has no gradient.

A coordinate whose row of such a matrix is zero has had no gradient so far (a padding token, an
input that is always 0). Any basis of the null space would do for the matrix, but one that mixed
this coordinate with others would move it by their gradients. So it is an eigenvector itself,
to the last bit.
"""

import torch
from torch import Tensor

from mlhf.curvature.eigh import eigh


def live_coordinates(factor: Tensor) -> Tensor | None:
    """Return the coordinates whose row of a factor (n, n) is not zero; None where all are.

    The factor is positive semi-definite, so that its diagonal decides. Waits for the device.
    """
    live = factor.diagonal() != 0
    return None if bool(live.all()) else live.nonzero().squeeze(1)


def eigenvectors(factor: Tensor) -> tuple[Tensor, Tensor]:
    """Return eigenvalues, from the smallest, and eigenvectors of a factor or a stack of them.

    Coordinates without a gradient come first. The eigenvalues of a factor that is not finite
    are NaN: the training loop then sees a loss that is not finite, as with any optimizer.

    Args:
        factor: (n, n) or (E, n, n).

    Returns:
        Shapes (n,) and (n, n), or (E, n) and (E, n, n).
    """
    if factor.ndim > 2:
        if bool((factor.diagonal(dim1=-2, dim2=-1) != 0).all()):
            return eigh(factor)
        each = [eigenvectors(f) for f in factor]
        return torch.stack([v for v, _ in each]), torch.stack([u for _, u in each])
    live = live_coordinates(factor)
    if live is None:
        return eigh(factor)
    size, dead = len(factor), len(factor) - len(live)
    values, vectors = eigh(factor[live.unsqueeze(1), live])
    is_dead = torch.ones(size, dtype=torch.bool, device=factor.device)
    is_dead[live] = False
    order = torch.arange(size, device=factor.device)
    result = torch.zeros_like(factor)
    result[order[is_dead], order[:dead]] = 1
    result[live.unsqueeze(1), order[dead:]] = vectors
    return torch.cat([values.new_zeros(dead), values]), result
