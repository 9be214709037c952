"""The L2 penalty of weight decay, one for all parameters or one a group."""

from collections.abc import Sequence

import torch
from torch import Tensor

from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.torch_api.param_groups import flat

Decay = float | list[float]  # one for all, or one for each parameter


def penalty(decay: Decay, parameters: Sequence[Tensor]) -> Tensor | None:
    """Return ½ Σ decay θ², a scalar; None where there is no decay."""
    if not decay:
        return None
    theta = flatten(parameters)
    if isinstance(decay, list):
        return 0.5 * torch.dot(flat(decay, parameters) * theta, theta)
    return 0.5 * decay * torch.dot(theta, theta)


def add_gradient(
    b: Tensor, decay: Decay, parameters: Sequence[Tensor], basis: Basis
) -> Tensor | None:
    """Add the penalty's gradient to b, which is in the basis.

    Returns:
        The decay of each of the flattened parameters where groups differ, else None.
    """
    if isinstance(decay, list):
        decays = flat(decay, parameters)
        b.add_(basis.rotate(unflatten(decays * flatten(parameters), parameters)))
        return decays
    if decay:
        b.add_(basis.rotate(parameters), alpha=decay)
    return None
