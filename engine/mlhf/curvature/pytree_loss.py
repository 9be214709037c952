"""A loss of all that a model returns: one tensor, or a pytree (tuple, list, dict) of them.

Losses, their gradients and Hessian products are computed in float32 at least, and returned in
the outputs' own dtypes.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError, explained
from mlhf.curvature.forward_pass import usable
from mlhf.curvature.loss_object import LossObject
from mlhf.curvature.losses import (
    autograd_loss,
    named_loss,
    resolve_loss,
    scalar,
)
from mlhf.curvature.positive_part import known_convex
from mlhf.curvature.protocol import Loss
from mlhf.curvature.uses import leaves_of
from mlhf.curvature.vectors import upcast


class PytreeLossAt(NamedTuple):
    """A loss at a model's outputs z = (z₁ … z_k), those that have a graph.

    Attributes:
        value: ℓ(z, y), a scalar.
        gradient: ∂ℓ/∂z, one tensor like each output.
        hessian_product: u ↦ (∂²ℓ/∂z²)u, one tensor like each output. The matrix is dense
            across outputs.
        convex: Whether ℓ is known to be convex in z.
        of_numbers: Whether ℓ is linear, and depends on outputs alone that are single numbers.
        leaves: What ℓ depends on beside z, as tensors with a gradient.
    """

    value: Tensor
    gradient: list[Tensor]
    hessian_product: Callable[[Sequence[Tensor]], list[Tensor]]
    convex: bool
    of_numbers: bool
    leaves: Sequence[Tensor]


def graph_outputs(z: Any) -> list[Tensor]:
    """Return the tensors in a model's output that have a graph.

    Raises:
        CurvatureError: where there is none, or all are empty.
    """
    if isinstance(z, Tensor):
        found = [z]
    else:
        found = [t for t in pytree.tree_leaves(z) if isinstance(t, Tensor)]
    graphed = [t for t in found if t.requires_grad]
    if not graphed:
        raise CurvatureError("the output does not depend on any parameter by a graph")
    if not any(t.numel() for t in graphed):
        raise CurvatureError(
            f"the batch is empty: the output has the shape {tuple(graphed[0].shape)}, so there is "
            "nothing to step by; leave such batches out"
        )
    return graphed


def pytree_loss(loss: Loss, z: Any, y: Any) -> PytreeLossAt:
    """Return the loss at z with its derivatives in z.

    Args:
        loss: The name of a loss, for a model that returns one tensor; or a function
            (z, y) ↦ scalar of all that the model returns, twice differentiable in it.
        z: The model's output.
        y: The target.

    Raises:
        CurvatureError: where the target does not fit the output, or a named loss is given
            several outputs.
    """
    y = usable(y)
    if isinstance(z, Tensor):
        at = resolve_loss(loss)(upcast(z), y)
        dtype = z.dtype

        def product(u: Sequence[Tensor]) -> list[Tensor]:
            return [at.hessian_product(upcast(u[0])).to(dtype)]

        gradient = [at.gradient.to(dtype)]
        of_numbers = at.linear and z.ndim == 0
        return PytreeLossAt(at.value, gradient, product, at.convex, of_numbers, at.leaves)
    return _of_function(_require_function(loss, z), z, y)


def loss_of(loss: Loss, z: Any, y: Any) -> Tensor:
    """Return ℓ(z, y) for autograd, in float32 at least."""
    y = usable(y)
    if not isinstance(z, Tensor):
        return _require_function(loss, z)(
            pytree.tree_map(lambda t: upcast(t) if isinstance(t, Tensor) else t, z), y
        )
    return autograd_loss(loss)(upcast(z), y)


def _of_function(function: Callable[[Any, Any], Tensor], z: Any, y: Any) -> PytreeLossAt:
    """Return a function of several outputs with its derivatives in all of them, by autograd."""
    flat, spec = pytree.tree_flatten(z)
    dtypes: list[torch.dtype] = []
    leaves: list[Tensor] = []
    for i, t in enumerate(flat):
        if isinstance(t, Tensor):
            needed, flat[i] = t.requires_grad, t.detach()
            if needed:
                dtypes.append(t.dtype)
                flat[i] = upcast(t).detach().requires_grad_()
                leaves.append(flat[i])
    with torch.enable_grad():
        value = scalar(function(pytree.tree_unflatten(flat, spec), y))
        found = torch.autograd.grad(value, leaves, create_graph=True, allow_unused=True)
    used = [t for t, g in zip(leaves, found, strict=True) if g is not None]
    gradient = [torch.zeros_like(t) if g is None else g for t, g in zip(leaves, found, strict=True)]
    curved = [g for g in gradient if g.requires_grad]

    def hessian_product(u: Sequence[Tensor]) -> list[Tensor]:
        if not curved:  # the loss is linear in z
            return [torch.zeros_like(t) for t in u]
        along = [upcast(t) for t, g in zip(u, gradient, strict=True) if g.requires_grad]
        with explained():
            found = torch.autograd.grad(
                curved, leaves, along, retain_graph=True, allow_unused=True, materialize_grads=True
            )
        return [t.to(dtype) for t, dtype in zip(found, dtypes, strict=True)]

    grads = [g.detach().to(dtype) for g, dtype in zip(gradient, dtypes, strict=True)]
    outputs = {id(t) for t in leaves}
    others = [t for t in leaves_of(value) if id(t) not in outputs]
    convex = isinstance(function, LossObject) or known_convex(value)
    of_numbers = not curved and all(t.ndim == 0 for t in used)
    return PytreeLossAt(value.detach(), grads, hessian_product, convex, of_numbers, others)


def _require_function(loss: Loss, z: Any) -> Callable[[Any, Any], Tensor]:
    if not isinstance(loss, str):
        return loss
    named_loss(loss)
    raise CurvatureError(
        f"{loss} needs a model that returns one tensor, not {type(z).__name__}; for "
        "several outputs give the loss as a function (z, y) ↦ scalar"
    )


def dot(a: Tensor, b: Tensor) -> Tensor:
    """Return ⟨a, b⟩, multiplied and summed in float32 at least."""
    return (upcast(a) * upcast(b)).sum()
