"""Products with a constant symmetric matrix, differentiable in the vector."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Product = Callable[[Sequence[Tensor]], list[Tensor]]


def symmetric(product: Product, v: Sequence[Tensor]) -> list[Tensor]:
    """Return product(v), differentiable in v if v requires a gradient.

    The matrix G is symmetric and constant, so the backward of v ↦ Gv is g ↦ Gg: again a
    product, at every order of differentiation. No graph of G is made.

    Args:
        product: v ↦ Gv for lists of tensors.
        v: One tensor like each parameter.
    """
    if torch.is_grad_enabled() and any(t.requires_grad for t in v):
        return list(_Symmetric.apply(product, *v))  # type: ignore[no-untyped-call]
    return product(v)


class _Symmetric(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, product: Product, *v: Tensor) -> tuple[Tensor, ...]:
        ctx.product = product
        return tuple(product(v))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        return None, *symmetric(ctx.product, gradients)
