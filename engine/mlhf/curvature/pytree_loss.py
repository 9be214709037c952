"""A loss over all that a model returns: one tensor, or a tuple or dict of them.

Types of low precision are left here: losses, their gradients and Hessian products are
computed in float32 at least, and handed back in the output's own type.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.losses import (
    autograd_loss,
    check_target,
    from_function,
    named_loss,
)
from mlhf.curvature.protocol import Loss


@dataclass(frozen=True)
class PytreeLossAt:
    """A loss at a model's outputs z = (z₁ … z_k): those that depend on parameters by a graph.

    Attributes:
        value: ℓ(z, y), a scalar.
        gradient: ∂ℓ/∂z, shaped like z.
        hessian_product: u ↦ (∂²ℓ/∂z²)u, shaped like z, with the blocks between outputs.
    """

    value: Tensor
    gradient: list[Tensor]
    hessian_product: Callable[[Sequence[Tensor]], list[Tensor]]


def graph_outputs(z: Any) -> list[Tensor]:
    """Return the tensors in what a model returned that depend on something by a graph."""
    if isinstance(z, Tensor):
        found = [z]
    else:
        found = [t for t in pytree.tree_leaves(z) if isinstance(t, Tensor)]
    graphed = [t for t in found if t.requires_grad]
    if not graphed:
        raise CurvatureError("the output does not depend on any parameter by a graph")
    return graphed


def pytree_loss(loss: Loss, z: Any, y: Any) -> PytreeLossAt:
    """Return the loss at z.

    Args:
        loss: A named one takes a model that returns one tensor; a function takes whatever
            the model returns, and may be any that is twice differentiable in it.
        z: What the model returned; y: the target.
    """
    if isinstance(z, Tensor):
        function = named_loss(loss) if isinstance(loss, str) else from_function(loss)
        at = function(upcast(z), y)
        low = z.dtype

        def product(u: Sequence[Tensor]) -> list[Tensor]:
            return [at.hessian_product(upcast(u[0])).to(low)]

        return PytreeLossAt(at.value, [at.gradient.to(low)], product)
    return _general(_of_several(loss, z), z, y)


def loss_of(loss: Loss, z: Any, y: Any) -> Tensor:
    """Return ℓ(z, y) for autograd, in float32 at least."""
    if not isinstance(z, Tensor):
        return _of_several(loss, z)(
            pytree.tree_map(lambda t: upcast(t) if isinstance(t, Tensor) else t, z), y
        )
    if isinstance(loss, str):
        check_target(loss, z, y)
    return autograd_loss(loss)(upcast(z), y)


def _general(function: Callable[[Any, Any], Tensor], z: Any, y: Any) -> PytreeLossAt:
    """Derivatives in z alone, by autograd over the whole tuple."""
    flat, spec = pytree.tree_flatten(z)
    types: list[torch.dtype] = []
    leaves: list[Tensor] = []
    for i, t in enumerate(flat):
        if isinstance(t, Tensor):
            needed, flat[i] = t.requires_grad, t.detach()
            if needed:
                types.append(t.dtype)
                flat[i] = upcast(t).detach().requires_grad_()
                leaves.append(flat[i])
    with torch.enable_grad():
        value = function(pytree.tree_unflatten(flat, spec), y)
        gradient = torch.autograd.grad(
            value, leaves, create_graph=True, allow_unused=True, materialize_grads=True
        )
    curved = [g for g in gradient if g.requires_grad]

    def hessian_product(u: Sequence[Tensor]) -> list[Tensor]:
        if not curved:  # the loss is linear in z
            return [torch.zeros_like(t) for t in u]
        along = [upcast(t) for t, g in zip(u, gradient, strict=True) if g.requires_grad]
        found = torch.autograd.grad(
            curved, leaves, along, retain_graph=True, allow_unused=True, materialize_grads=True
        )
        return [t.to(low) for t, low in zip(found, types, strict=True)]

    grads = [g.detach().to(low) for g, low in zip(gradient, types, strict=True)]
    return PytreeLossAt(value.detach(), grads, hessian_product)


def _of_several(loss: Loss, z: Any) -> Callable[[Any, Any], Tensor]:
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


def upcast(t: Tensor) -> Tensor:
    """Return t in float32 where its type is of lower precision."""
    return t.float() if t.dtype in (torch.bfloat16, torch.float16) else t
