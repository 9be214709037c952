"""Gradients at a network's output whose outer products have the Fisher matrix as mean.

For a loss that is a mean over N rows of the output z, F = JᵀHJ with H the Hessian of the loss
in z. Each function returns rows g such that the mean over rows of g gᵀ is (in expectation,
exactly, or for the data's labels) N times H's diagonal blocks.
"""

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.loss_object import TensorLoss
from mlhf.curvature.losses import IGNORED
from mlhf.curvature.protocol import Loss


def rows_of(loss: Loss, z: Tensor) -> int:
    """Return over how many rows a loss is a mean, which may know better than the output."""
    return loss.rows(z) if isinstance(loss, TensorLoss) else rows(as_rows(loss, z))


def rows(z: Tensor) -> int:
    """Return over how many rows (samples, or tokens) the loss of this output is a mean.

    An output (N,) has N rows of one value each.
    """
    return max(1, z.numel() // max(1, z.shape[-1])) if z.ndim > 1 else max(1, z.numel())


def as_rows(loss: Loss, z: Tensor) -> Tensor:
    """Return the output (..., C), a view: one of a single dimension may be C logits or N values.

    ``sampled`` and ``exact`` take an output like this.
    """
    if z.ndim > 1 or isinstance(loss, TensorLoss):
        return z
    return z.reshape(1, -1) if loss == "cross_entropy" else z.reshape(-1, 1)


def row_weights(loss: Loss, z: Tensor, y: Any) -> Tensor | None:
    """Return each row's weight in the mean, times the number of rows; None if all are 1.

    Shape (..., 1), for cross-entropy alone: positions that it ignores have no weight.
    """
    if loss != "cross_entropy":
        return None
    counted: Tensor = (y != IGNORED).to(z.dtype)
    return counted.div_(counted.mean()).unsqueeze(-1)


def sampled(loss: Loss, z: Tensor, generator: torch.Generator, y: Any = None) -> Tensor:
    """Return the gradient of the summed loss for labels drawn from the network itself.

    Args:
        loss: ``"cross_entropy"``, ``"mse"`` (a Gaussian) or ``"binary_cross_entropy"``.
        z: The output (..., C), detached.
        generator: On the CPU, wherever z is: the draws are then the same on every device.
        y: The target, which the Hessian of some losses with options depends on.
    """
    if isinstance(loss, TensorLoss):
        return math.sqrt(loss.rows(z)) * loss.sampled_root(z, y, generator)
    if loss == "cross_entropy":
        p = torch.softmax(z, -1)
        draw = torch.rand(z.shape[:-1], generator=generator).to(z)
        labels = (p.cumsum(-1) < draw.unsqueeze(-1)).sum(-1).clamp_max(z.shape[-1] - 1)
        return p.scatter_add(-1, labels.unsqueeze(-1), p.new_full((*labels.shape, 1), -1.0))
    if loss == "mse":
        draw = torch.randn(z.shape, generator=generator).to(z)
        return draw.mul_(math.sqrt(2 / z.shape[-1]))
    if loss == "binary_cross_entropy":
        p = torch.sigmoid(z)
        draw = torch.rand(z.shape, generator=generator).to(z)
        return (p - (draw < p).to(z)) / math.sqrt(z.shape[-1])
    raise CurvatureError(f"no labels can be drawn for {_name(loss)}: use the empirical Fisher")


def exact(loss: Loss, z: Tensor, y: Any = None) -> Iterator[Tensor]:
    """Yield gradients, one for each output, whose outer products add up to the Hessian."""
    if isinstance(loss, TensorLoss):
        for root in loss.exact_root(z, y):
            yield math.sqrt(loss.rows(z)) * root
        return
    eye = torch.eye(z.shape[-1], dtype=z.dtype, device=z.device)
    if loss == "cross_entropy":
        p = torch.softmax(z, -1)
        for c in range(z.shape[-1]):
            yield p[..., c : c + 1].sqrt() * (p - eye[c])
    elif loss == "mse":
        for c in range(z.shape[-1]):
            yield eye[c].expand(z.shape) * math.sqrt(2 / z.shape[-1])
    elif loss == "binary_cross_entropy":
        p = torch.sigmoid(z)
        slope = (p * (1 - p) / z.shape[-1]).sqrt()
        for c in range(z.shape[-1]):
            yield slope * eye[c]
    else:
        raise CurvatureError(f"{_name(loss)} has no known Fisher: use the empirical one")


def _name(loss: Loss) -> str:
    return loss if isinstance(loss, str) else "a general loss"
