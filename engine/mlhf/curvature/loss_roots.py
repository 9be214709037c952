"""Roots of a loss's Hessian: the residuals and rows that make any loss a least-squares one.

With H_i = SᵢᵀSᵢ for each sample i and Sᵢᵀr̃ᵢ = ∂ℓ/∂zᵢ,

    ∇θℓ = J̃ᵀr̃  and  JᵀHJ = J̃ᵀJ̃  for  J̃ = SJ,

so what solves least squares solves the Gauss-Newton system of ℓ. The gradient is exact. Where H
is singular or indefinite its eigenvalues are raised to a small positive floor: r̃ is finite then,
and J̃ᵀJ̃ has at least the curvature of the loss.
"""

import math
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.curvature.consistency import normal_like
from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.losses import check_target
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import PytreeLossAt, pytree_loss

LARGEST_BLOCK = 64  # outputs of a sample; beyond, a root costs more than it is worth


class LossRoot(NamedTuple):
    """A loss at outputs z of n samples, C numbers each.

    Attributes:
        value: ℓ, a scalar.
        residual: r̃, shape (n, k).
        root: S, shape (n, k, C).
    """

    value: Tensor
    residual: Tensor
    root: Tensor


def loss_root(loss: Loss, z: Any, y: Any) -> LossRoot | None:
    """Return a loss's root at z; None where its Hessian is not small blocks, one a sample.

    Args:
        loss: As for ``GGN``.
        z: Outputs without graph, shape (n, …).
        y: The target.

    Raises:
        CurvatureError: for a loss that is linear in z, which has no curvature; and as for
            ``pytree_loss``.
    """
    if not isinstance(z, Tensor) or not z.ndim or z.numel() // max(len(z), 1) > LARGEST_BLOCK:
        return None
    flat = z.reshape(len(z), -1)
    if loss == "mse":
        check_target(loss, z, y)
        scale = math.sqrt(2 / max(z.numel(), 1))
        error = flat - y.reshape(flat.shape)
        eye = torch.eye(flat.shape[1], dtype=z.dtype, device=z.device)
        root = (scale * eye).expand(len(z), -1, -1)
        return LossRoot(error.square().mean(), scale * error, root)
    leaf = z.detach().requires_grad_()
    at = pytree_loss(loss, leaf, y)
    if loss == "cross_entropy" and z.ndim == 2:
        return _of_cross_entropy(z, y, at)
    return _by_blocks(leaf, at)


def _of_cross_entropy(z: Tensor, y: Tensor, at: PytreeLossAt) -> LossRoot:
    """diag(p) − ppᵀ = SᵀS for S = diag(√p)(I − 1pᵀ), and Sᵀ(c/√p) = c wherever 1ᵀc = 0."""
    p = F.softmax(z, -1)
    counted = (y >= 0).to(z.dtype)  # others are ignored, and have no gradient
    scale = (counted / counted.sum().clamp_min(1)).sqrt().unsqueeze(-1)
    raised = p.clamp_min(torch.finfo(z.dtype).eps).sqrt()  # at least the curvature of the loss
    eye = torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
    root = (scale * raised).unsqueeze(-1) * (eye - p.unsqueeze(1))
    residual = torch.where(scale > 0, at.gradient[0] / (scale * raised), 0.0)
    return LossRoot(at.value, residual, root)


def _by_blocks(z: Tensor, at: PytreeLossAt) -> LossRoot | None:
    n, size = len(z), z.numel() // max(len(z), 1)
    blocks = z.new_empty(n, size, size)
    for i in range(size):
        one = z.new_zeros(n, size)
        one[:, i] = 1
        blocks[:, i] = at.hessian_product([one.view(z.shape)])[0].reshape(n, size)
    blocks = 0.5 * (blocks + blocks.mT)
    (u,) = normal_like([z.detach()], 0)
    across = at.hessian_product([u])[0].reshape(n, size)
    along = torch.einsum("ncd,nd->nc", blocks, u.reshape(n, size))
    tolerance = math.sqrt(torch.finfo(z.dtype).eps)
    if bool((across - along).norm() > tolerance * across.norm()):
        return None  # samples share a part of the loss
    if not bool(blocks.any()) and bool(at.gradient[0].any()):
        raise CurvatureError(
            "the loss is linear in the model's outputs, so it has no Gauss-Newton matrix: take a "
            "loss that is curved, such as the square of a residual"
        )
    values, vectors = (blocks, torch.ones_like(blocks)) if size == 1 else _eigen(blocks)
    values = values.reshape(n, size)
    floor = tolerance * values.abs().max()
    root_values = values.clamp_min(floor.clamp_min(torch.finfo(z.dtype).tiny)).sqrt()
    root = root_values.unsqueeze(-1) * vectors.mT
    c = at.gradient[0].reshape(n, size, 1)
    residual = (vectors.mT @ c).squeeze(-1) / root_values
    return LossRoot(at.value, residual, root)


def _eigen(blocks: Tensor) -> tuple[Tensor, Tensor]:
    finite = torch.nan_to_num(blocks)  # a loss that is not finite is told of by its value
    values, vectors = torch.linalg.eigh(finite)
    return values, vectors
