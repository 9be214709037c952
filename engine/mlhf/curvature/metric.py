"""A metric of its own for natural gradients: rows whose Gram matrix is that of the metric.

With the Hessian H = SᵀS of a metric over all outputs z of a batch, and the gradient c of a loss,

    (JᵀHJ + λI)d = Jᵀc  is  (J̃ᵀJ̃ + λI)d = J̃ᵀr̃  for  J̃ = SJ,  Sᵀr̃ = c.

H need not be blocks, one a sample: the Fisher matrix of a distribution over the batch's samples
is not. It is dense, of (rows)² numbers.
"""

from typing import Any

import torch
from torch import Tensor

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.jacobian.chunks import Rows
from mlhf.curvature.losses import scalar
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import loss_of, pytree_loss

MOST_OUTPUTS = 4096


class MetricRoot:
    """A loss's gradient and a metric's root, at outputs z.

    Args:
        loss: The loss, as for ``GGN``; once differentiable.
        metric: A function like a loss, convex in z. Only its Hessian is used.
        z: Outputs without graph.
        y: The target of both.

    Attributes:
        value: ℓ, a scalar.
        residual: r̃ (k,), k the rank of H to rounding.
        root: S (k, numel of z).

    Raises:
        CurvatureError: for more outputs than a dense matrix is worth, or a metric without
            curvature.
    """

    def __init__(self, loss: Loss, metric: Loss, z: Tensor, y: Any) -> None:
        count = z.numel()
        if count > MOST_OUTPUTS:
            raise CurvatureError(
                f"a metric is a dense matrix of the batch's outputs, at most {MOST_OUTPUTS:,}; "
                f"this batch has {count:,}: take fewer samples"
            )
        leaf = z.detach().requires_grad_()
        at = pytree_loss(loss, leaf, y)
        self.value = at.value
        hessian = _hessian(metric, leaf, y)
        values, vectors = torch.linalg.eigh(torch.nan_to_num(0.5 * (hessian + hessian.T)))
        least = torch.finfo(z.dtype).eps * count * values.abs().max()
        kept = values > least
        if not bool(kept.any()):
            raise CurvatureError("the metric has no curvature in the model's outputs")
        scale, along = values[kept].sqrt(), vectors[:, kept]
        self.root = scale.unsqueeze(1) * along.T
        self.residual = (along.T @ at.gradient[0].reshape(-1)) / scale


def _hessian(metric: Loss, z: Tensor, y: Any) -> Tensor:
    """Return ∂²/∂z² of a metric, (numel, numel), by batched backward passes."""
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(
            scalar(loss_of(metric, z, y)), z, create_graph=True, materialize_grads=True
        )
    count = z.numel()
    if not gradient.requires_grad:  # linear in z
        return z.new_zeros(count, count)
    eye = torch.eye(count, dtype=z.dtype, device=z.device).view(count, *z.shape)
    (rows,) = torch.autograd.grad(gradient, z, eye, is_grads_batched=True)
    return rows.reshape(count, count)


class MetricRows:
    """The rows SJ, by those of J.

    Args:
        rows: J, all of the batch's rows at once.
        root: S.
    """

    def __init__(self, rows: Rows, root: Tensor) -> None:
        self._rows, self._root = rows, root

    def dense(self) -> Tensor:
        """Return the rows, (k, p)."""
        return self._root @ self._rows.dense()

    def gram(self) -> Tensor:
        """Return SJJᵀSᵀ, (k, k)."""
        return self._root @ self._rows.gram() @ self._root.T

    def transposed(self, a: Tensor) -> Tensor:
        """Return JᵀSᵀa, a flat vector (p,)."""
        return self._rows.transposed(a @ self._root)

    def times(self, v: Tensor) -> Tensor:
        """Return SJv, shape (k,), for a flat vector v."""
        return self._root @ self._rows.times(v)
