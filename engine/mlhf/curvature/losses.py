"""Losses as functions of a network's output, with their gradients and Hessian products.

The named losses are convex in the output, so their Gauss-Newton matrices JᵀHJ are positive
semi-definite.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mlhf.curvature.errors import CurvatureError, explained
from mlhf.curvature.loss_object import LossAt, LossObject, TensorLoss
from mlhf.curvature.positive_part import known_convex
from mlhf.curvature.protocol import Loss
from mlhf.curvature.uses import leaves_of

# The passes of torch's own loss, without a graph: half the calls of the formulas written out.
_aten, _MEAN = torch.ops.aten, 1
IGNORED = -100  # the class of positions that cross-entropy leaves out, torch's default
LossFunction = Callable[[Tensor, Tensor], LossAt]


def check_target(name: str, z: Tensor, y: Tensor) -> None:
    """Check that a target fits the output: otherwise it would be broadcast silently.

    Raises:
        CurvatureError: where it does not.
    """
    if name == "cross_entropy":
        if y.shape != z.shape[:-1] or y.is_floating_point():
            raise CurvatureError(
                f"cross_entropy needs logits (..., classes) and integer classes (...); "
                f"got {tuple(z.shape)} and {y.dtype} {tuple(y.shape)}"
            )
    elif y.shape != z.shape:
        raise CurvatureError(
            f"{name} needs targets shaped like the output; got {tuple(z.shape)}, {tuple(y.shape)}"
        )


@contextmanager
def _labels_explained(z: Tensor, y: Tensor) -> Iterator[None]:
    """Say what is wrong with labels; they are looked at only where torch fails (on a CPU)."""
    try:
        yield
    except (IndexError, RuntimeError):
        counted = y[y != IGNORED]
        least, most, classes = int(counted.min()), int(counted.max()), z.shape[-1]
        if least >= 0 and most < classes:
            raise
        raise CurvatureError(
            f"cross_entropy has labels from {least} to {most}, but the output has {classes} "
            f"classes, 0 to {classes - 1}. Labels of {IGNORED} are ignored; for others give the "
            "loss as a function: lambda z, y: F.cross_entropy(z, y, ignore_index=…)"
        ) from None


def cross_entropy(z: Tensor, y: Tensor) -> LossAt:
    """Softmax cross-entropy, the mean over all positions.

    Positions whose class is −100 are ignored, as torch does by default.

    Args:
        z: Logits, shape (..., C).
        y: Classes, integers of shape (...).
    """
    check_target("cross_entropy", z, y)
    z = z.detach()
    if not y.numel():
        return LossAt(z.new_zeros(()), z.clone(), torch.zeros_like)
    log_p = F.log_softmax(z, dim=-1).reshape(-1, z.shape[-1])
    with _labels_explained(z, y):
        at = (log_p, y.reshape(-1).long(), None, _MEAN, IGNORED)
        value, total = _aten.nll_loss_forward(*at)
    # By log p: -1 / N at a label that is counted, N of them, and 0 elsewhere.
    by_log_p = _aten.nll_loss_backward(torch.ones_like(value), *at, total)
    gradient = _aten._log_softmax_backward_data(by_log_p, log_p, -1, z.dtype).view_as(z)
    p = log_p.exp_().view_as(z)
    scaled: Tensor = p * by_log_p.sum(-1).neg_().view_as(y).unsqueeze(-1)

    def hessian_product(u: Tensor) -> Tensor:
        return scaled * (u - (p * u).sum(-1, keepdim=True))

    return LossAt(value, gradient, hessian_product)


def mse(z: Tensor, y: Tensor) -> LossAt:
    """Squared error, the mean over all elements."""
    check_target("mse", z, y)
    z = z.detach()
    scale = 2.0 / max(z.numel(), 1)
    error = z - y

    def hessian_product(u: Tensor) -> Tensor:
        return scale * u

    return LossAt(error.square().mean(), scale * error, hessian_product)


def binary_cross_entropy(z: Tensor, y: Tensor) -> LossAt:
    """Cross-entropy of sigmoid(z) and y, the mean over all elements.

    Args:
        z: Logits, any shape.
        y: Probabilities of the same shape and any dtype, from 0 to 1.
    """
    check_target("binary_cross_entropy", z, y)
    z, y = z.detach(), y.to(z.dtype)
    count = max(z.numel(), 1)
    p = torch.sigmoid(z)
    # 1 − p as sigmoid(−z), which does not cancel where p is near 1.
    slope = p * torch.sigmoid(-z) / count

    def hessian_product(u: Tensor) -> Tensor:
        return slope * u

    value = F.binary_cross_entropy_with_logits(z, y)
    return LossAt(value, (p - y).div_(count), hessian_product)


def scalar(value: Any) -> Tensor:
    """Return what a loss function returned, as a tensor without dimensions.

    Raises:
        CurvatureError: where it is not one number, or has no graph.
    """
    if not isinstance(value, Tensor) or value.numel() != 1:
        what = f"a tensor {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise CurvatureError(f"the loss should return one number, a scalar tensor, not {what}")
    if not value.requires_grad:
        raise CurvatureError(
            "the loss does not depend on the model's outputs by a graph: was it detached, or made "
            "of numbers that are not tensors?"
        )
    return value.reshape(()) if value.ndim else value


def from_function(function: Callable[[Tensor, Tensor], Tensor]) -> LossFunction:
    """Return a loss made of any twice differentiable ``function(z, y)``, by autograd in z."""

    def loss(z: Tensor, y: Tensor) -> LossAt:
        leaf = z.detach().requires_grad_()
        with torch.enable_grad():
            value = scalar(function(leaf, y))
            (gradient,) = torch.autograd.grad(
                value, leaf, create_graph=True, allow_unused=True, materialize_grads=True
            )

        def hessian_product(u: Tensor) -> Tensor:
            if not gradient.requires_grad:  # the loss is linear in z
                return torch.zeros_like(u)
            with torch.enable_grad(), explained():
                (product,) = torch.autograd.grad(
                    gradient, leaf, u, retain_graph=True, materialize_grads=True
                )
            return product

        others = [t for t in leaves_of(value) if t is not leaf]
        linear = not gradient.requires_grad
        convex = isinstance(function, LossObject) or known_convex(value)
        return LossAt(value.detach(), gradient.detach(), hessian_product, convex, linear, others)

    return loss


LOSSES: dict[str, LossFunction] = {
    "binary_cross_entropy": binary_cross_entropy,
    "cross_entropy": cross_entropy,
    "mse": mse,
}


def named_loss(name: str) -> LossFunction:
    """Return the loss of that name.

    Raises:
        ValueError: where there is none.
    """
    if name not in LOSSES:
        raise ValueError(f"unknown loss {name!r}; known: {', '.join(LOSSES)}")
    return LOSSES[name]


def check_loss(loss: Any) -> None:
    """Check that a loss is a known name or a function.

    Raises:
        ValueError: where it is not.
    """
    if isinstance(loss, str):
        named_loss(loss)
    elif not callable(loss):
        raise ValueError(
            f"loss={loss!r} is not allowed: it should be a name ({', '.join(LOSSES)}), or a "
            "function (z, y) ↦ scalar of what the model returns"
        )


def resolve_loss(loss: Loss) -> LossFunction:
    """Return a loss with derivatives, given its name or a function (z, y) ↦ scalar."""
    if isinstance(loss, TensorLoss):
        return loss.at
    return named_loss(loss) if isinstance(loss, str) else from_function(loss)


def autograd_loss(loss: Loss) -> Callable[[Any, Any], Tensor]:
    """Return a function (z, y) ↦ scalar for autograd, given a loss's name or such a function.

    Raises:
        CurvatureError: by that function, where the target does not fit the output of a named loss.
    """
    check_loss(loss)
    if not isinstance(loss, str):
        return loss
    return partial(_named_for_autograd, loss)


def _named_for_autograd(name: str, z: Tensor, y: Tensor) -> Tensor:
    check_target(name, z, y)
    if name == "cross_entropy":
        with _labels_explained(z, y):
            return F.cross_entropy(
                z.reshape(-1, z.shape[-1]), y.reshape(-1).long(), ignore_index=IGNORED
            )
    if name == "binary_cross_entropy":
        return F.binary_cross_entropy_with_logits(z, y.to(z.dtype))
    return F.mse_loss(z, y)
