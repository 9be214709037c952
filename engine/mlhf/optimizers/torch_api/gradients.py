"""The gradients that ``step()`` reads, and what they belong to."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mlhf.curvature.errors import CurvatureError


class Gradients(NamedTuple):
    """The gradients of a step.

    Attributes:
        values: One tensor like each parameter.
        scale: What ``GradScaler`` multiplied the loss by and took out of the values again; 1
            where there is none, None where it does not tell.
    """

    values: list[Tensor]
    scale: float | None = 1.0


def gradients_of(optimizer: Any, parameters: Sequence[Tensor]) -> Gradients:
    """Return what is in ``.grad``, without the scale of a ``GradScaler``.

    Raises:
        CurvatureError: where there is nothing in any.
    """
    if all(p.grad is None for p in parameters):
        raise CurvatureError(
            "no parameter has a gradient: call backward() of the loss before step(), and "
            "zero_grad() after it"
        )
    values = [_dense(p) for p in parameters]
    if not hasattr(optimizer, "found_inf"):
        return Gradients(values)
    if optimizer.grad_scale is None:  # unscaled before, by ``unscale_``
        return Gradients(values, None)
    scale = float(optimizer.grad_scale)
    return Gradients([g / scale for g in values], scale)


def pass_weights(factors: Sequence[Sequence[Tensor]], scale: float | None) -> list[float]:
    """Return what each pass's loss counts in the sum that the gradients are of.

    Waits for the device, once.

    Args:
        factors: Of each pass, what its loss was multiplied by in each backward pass.
        scale: As in ``Gradients``. Where it is unknown, the sum is taken for a mean.
    """
    sums = [torch.stack(list(own)).sum() for own in factors]
    weights: list[float] = torch.stack(sums).tolist()
    total = sum(weights) if scale is None else scale
    return [weight / total for weight in weights]


def _dense(p: Tensor) -> Tensor:
    if p.grad is None:
        return torch.zeros_like(p)
    return p.grad if p.grad.layout is torch.strided else p.grad.to_dense()
