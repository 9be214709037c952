"""Derivatives of a network in its input, exact, for residuals written for one point.

They may be differentiated in the network's parameters, and mapped over points by
``torch.func.vmap``. Derivatives along a direction are nested forward passes (Taylor mode), so a
second derivative keeps no graph of a first. The Laplacian of a chain of linear and elementwise
layers is one pass of (u, ∂u, Δu) (Li et al. 2024, "A computational framework for neural network-
based variational Monte Carlo with forward Laplacian").
"""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mlhf.curvature.hooks import only_reads
from mlhf.curvature.residuals import Field

Function = Callable[[Tensor], Tensor]

# Elementwise, by exact type: a subclass may do something else.
_ELEMENTWISE = (
    *(nn.Tanh, nn.Sigmoid, nn.GELU, nn.SiLU, nn.Softplus, nn.ELU, nn.Mish, nn.Softsign),
    *(nn.LogSigmoid, nn.Tanhshrink, nn.CELU, nn.SELU),
)


def gradient(u: Function, x: Tensor) -> Tensor:
    """Return ∂u/∂x at a point x (d,): shape (d,), or (m, d) where u has m outputs."""
    found: Tensor = torch.func.jacrev(u)(x)
    return found


def directional(u: Function, x: Tensor, v: Tensor, order: int = 1) -> Tensor:
    """Return the derivative dᵏ/dtᵏ u(x + tv) at t = 0, shaped like u(x).

    Args:
        u: The function of a point.
        x: The point (d,).
        v: The direction (d,).
        order: k, at least 1.

    Raises:
        ValueError: for an order below 1.
    """
    if order < 1:
        raise ValueError(f"order={order!r} is not allowed: it should be 1 or more")
    f: Function = u
    for _ in range(order):
        f = _along(f, v)
    return f(x)


def partial(u: Function, x: Tensor, index: int, order: int = 1) -> Tensor:
    """Return ∂ᵏu/∂xᵢᵏ at a point x (d,), shaped like u(x)."""
    v = torch.zeros_like(x)
    v[index] = 1
    return directional(u, x, v, order)


def laplacian(u: Function, x: Tensor) -> Tensor:
    """Return Δu = Σᵢ ∂²u/∂xᵢ² at a point x (d,), shaped like u(x)."""
    if isinstance(u, Field) and (layers := _chain(u)) is not None:
        found = _forward_jet(layers, x, range(len(x)), True)[2]
        return found.reshape(()) if found.numel() == 1 else found
    basis = torch.eye(len(x), dtype=x.dtype, device=x.device)
    second: Tensor = torch.func.vmap(lambda v: directional(u, x, v, 2))(basis)
    return second.sum(0)


class Jet(NamedTuple):
    """A function and its derivatives at a point (d,).

    Attributes:
        value: u, a scalar.
        first: ∂u/∂xᵢ, shape (d,).
        second: Those of ∂²u/∂xᵢ² that were asked for, shape (k,), or their sum.
    """

    value: Tensor
    first: Tensor
    second: Tensor


def jet(u: Function, x: Tensor, second: Sequence[int] = (), *, summed: bool = False) -> Jet:
    """Return u, its gradient, and pure second derivatives, in one pass where u is a chain.

    Args:
        u: A function of a point, with one output.
        x: The point (d,).
        second: Coordinates of the second derivatives.
        summed: Whether only the sum of these is wanted, which is cheaper.
    """
    if isinstance(u, Field) and (layers := _chain(u)) is not None:
        value, first, found = _forward_jet(layers, x, second, summed)
        return Jet(value.reshape(()), first.squeeze(-1), found.squeeze(-1))
    basis = torch.eye(len(x), dtype=x.dtype, device=x.device)
    first = torch.func.vmap(lambda v: directional(u, x, v))(basis)
    if not second:
        return Jet(u(x), first, x.new_zeros(() if summed else 0))
    found = torch.func.vmap(lambda v: directional(u, x, v, 2))(basis[list(second)])
    return Jet(u(x), first, found.sum() if summed else found)


def _along(f: Function, v: Tensor) -> Function:
    def derivative(x: Tensor) -> Tensor:
        tangent: Tensor = torch.func.jvp(f, (x,), (v,))[1]
        return tangent

    return derivative


# A linear layer's weight and bias, or an elementwise function.
_Layer = tuple[Tensor, Tensor | None] | nn.Module


def _chain(u: Field) -> list[_Layer] | None:
    """Return the layers that u is a chain of; None where it is something else."""
    found: list[_Layer] = []
    for name, module in _leaves(u.network, ""):
        if type(module) is nn.Linear and not _hooked(module):
            prefix = f"{name}." if name else ""
            bias = None if module.bias is None else u.parameter(f"{prefix}bias", module.bias)
            found.append((u.parameter(f"{prefix}weight", module.weight), bias))
        elif type(module) in _ELEMENTWISE and not _hooked(module):
            found.append(module)
        else:
            return None
    return found


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential or _hooked(module):
        yield name, module
        return
    for child, layer in module.named_children():
        yield from _leaves(layer, f"{name}.{child}" if name else child)


def _hooked(module: nn.Module) -> bool:
    # Whether an optimizer records a layer now must not change a bit of what is computed.
    return not all(map(only_reads, (*module._forward_hooks, *module._forward_pre_hooks)))


def _forward_jet(
    layers: list[_Layer], x: Tensor, second: Sequence[int], summed: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Return value (m,), ∂value/∂xᵢ (d, m), and second derivatives (k, m), or their sum (m,)."""
    value = x
    first = torch.eye(len(x), dtype=x.dtype, device=x.device)  # ∂value/∂xᵢ, one a row
    rows = None if len(second) == len(x) else list(second)
    bent = x.new_zeros(len(x)) if summed else x.new_zeros(len(second), len(x))
    for layer in layers:
        if isinstance(layer, nn.Module):
            value, slope, bend = _twice(layer, value)
            squares = (first if rows is None else first[rows]).square()
            bent = slope * bent + bend * (squares.sum(0) if summed else squares)
            first = slope * first
        else:
            weight, bias = layer
            value = weight @ value if bias is None else weight @ value + bias
            first, bent = first @ weight.mT, bent @ weight.mT
    return value, first, bent


def _twice(layer: nn.Module, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return σ(x), σ'(x) and σ''(x), elementwise."""
    if type(layer) is nn.Tanh:
        y = torch.tanh(x)
        slope = 1 - y * y
        return y, slope, -2 * y * slope
    ones = torch.ones_like(x)
    function: Function = layer.__call__
    derivative = _along(function, ones)
    return function(x), derivative(x), _along(derivative, ones)(x)
