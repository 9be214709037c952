"""Tangents of view operations and the like: nodes that split, stack, permute or expand.

These do to tangents what they do to values. Recurrent and attention layers have hundreds of
them, with hardly any arithmetic, so differentiating their backward would be most of a
product's cost there. Rules are as in ``rules.py``, but their functions return a tangent for
each of the node's outputs: a tensor for one output, else a tuple.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tangents = tuple[Tensor | None, ...]
ViewRule = Callable[[Any], Callable[[Tangents], Any]]


def _single(of: Callable[[Any], Callable[[Tensor], Any]]) -> ViewRule:
    """Return the rule of a node with a single input, whose tangent is then never None."""

    def rule(node: Any) -> Callable[[Tangents], Any]:
        function = of(node)

        def tangent(inputs: Tangents) -> Any:
            (a,) = inputs
            assert a is not None
            return function(a)

        return tangent

    return rule


def _split(node: Any) -> Callable[[Tensor], Any]:
    size, dim = node._saved_split_size, _signed(node._saved_dim)
    return lambda a: torch.ops.aten.split(a, size, dim)


def _unbind(node: Any) -> Callable[[Tensor], Any]:
    dim = _signed(node._saved_dim)
    alone = len(node._input_metadata) == 1
    return lambda a: a.unbind(dim)[0] if alone else a.unbind(dim)


def _transpose(node: Any) -> Callable[[Tensor], Any]:
    first, second = _signed(node._saved_dim0), _signed(node._saved_dim1)
    return lambda a: a.transpose(first, second)


def _permute(node: Any) -> Callable[[Tensor], Any]:
    dims = [_signed(dim) for dim in node._saved_dims]
    return lambda a: a.permute(dims)


def _expand(node: Any) -> Callable[[Tensor], Any]:
    shape = node._input_metadata[0].shape
    return lambda a: a.expand(shape)


def _clone(node: Any) -> Callable[[Tensor], Any]:
    # Contiguous like the value: what follows may view the copy in ways its source forbids.
    return lambda a: a.contiguous()


def _stack(node: Any) -> Callable[[Tangents], Any]:
    dim = _signed(node._saved_dim)
    shape = list(node._input_metadata[0].shape)
    del shape[dim]

    def tangent(inputs: Tangents) -> Tensor:
        zero: Tensor | None = None
        whole: list[Tensor] = []
        for t in inputs:
            if t is None:
                if zero is None:
                    zero = next(s for s in inputs if s is not None).new_zeros(shape)
                t = zero
            whole.append(t)
        return torch.stack(whole, dim)

    return tangent


def _identity(node: Any) -> Callable[[Tangents], Any]:
    """The identity, written in Python, to which a module's backward hooks are attached."""
    alone = len(node._input_metadata) == 1
    return lambda inputs: inputs[0] if alone else inputs


def _signed(dim: int) -> int:
    """Return a dimension as it was given: nodes save a negative one as unsigned 64 bits."""
    return dim - 2**64 if dim >= 2**63 else dim


VIEW_RULES: dict[str, ViewRule] = {
    "BackwardHookFunctionBackward": _identity,
    "CloneBackward0": _single(_clone),
    "ExpandBackward0": _single(_expand),
    "PermuteBackward0": _single(_permute),
    "SplitBackward0": _single(_split),
    "StackBackward0": _stack,
    "TransposeBackward0": _single(_transpose),
    "UnbindBackward0": _single(_unbind),
    "UnsafeSplitBackward0": _single(_split),
}
