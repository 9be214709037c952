"""Tangents of nodes that cut, join, reorder or spread: the same on tangents as on values.

Recurrent and attention layers have hundreds of them, each with next to no arithmetic, so that
differentiating their backward is most of what a product costs there. A rule here is as in
``rules.py``, but its function returns one tangent for each of the node's outputs: a tensor
where it has one, else a tuple.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Tangents = tuple[Tensor | None, ...]
ViewRule = Callable[[Any], Callable[[Tangents], Any]]


def _one(of: Callable[[Any], Callable[[Tensor], Any]]) -> ViewRule:
    """Return the rule of a node with one input, which has a tangent whenever it is called."""

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
    # Contiguous, as what follows was: a view of it may not be one of its source.
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


def _same(node: Any) -> Callable[[Tangents], Any]:
    """What a module's backward hooks hang on: the identity, though written in Python."""
    alone = len(node._input_metadata) == 1
    return lambda inputs: inputs[0] if alone else inputs


def _signed(dim: int) -> int:
    """Return a dimension as it was given: nodes keep a negative one as 2⁶⁴ less."""
    return dim - 2**64 if dim >= 2**63 else dim


VIEW_RULES: dict[str, ViewRule] = {
    "BackwardHookFunctionBackward": _same,
    "CloneBackward0": _one(_clone),
    "ExpandBackward0": _one(_expand),
    "PermuteBackward0": _one(_permute),
    "SplitBackward0": _one(_split),
    "StackBackward0": _stack,
    "TransposeBackward0": _one(_transpose),
    "UnbindBackward0": _one(_unbind),
    "UnsafeSplitBackward0": _one(_split),
}
