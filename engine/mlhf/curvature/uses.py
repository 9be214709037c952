"""How a forward pass uses parameters, read from its graph."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

_LEAF = "torch::autograd::AccumulateGrad"
_CONVOLUTION = "ConvolutionBackward0"
# Beyond these a parameter is no longer a factor of what comes out, but has been used.
_PRODUCTS = frozenset(
    [_CONVOLUTION, "MmBackward0", "AddmmBackward0", "BmmBackward0", "BaddbmmBackward0"]
)
_ROWS_OF = {"EmbeddingBackward0": "_saved_indices", "IndexSelectBackward0": "_saved_index"}
# These keep the rows of a table, or leave some out.
_KEEP_ROWS = frozenset(
    f"{name}Backward0"
    for name in (
        *("Alias", "Clone", "Expand", "NativeDropout", "Reshape", "ReshapeAlias"),
        *("Select", "Slice", "Squeeze", "ToCopy", "Unsqueeze", "UnsafeView", "View"),
    )
)


class Uses:
    """What a pass uses its parameters for.

    Args:
        z: The outputs, each with its graph.
    """

    def __init__(self, z: Sequence[Tensor]) -> None:
        nodes = _reachable(get_gradient_edge(t).node for t in z)
        self._used = {id(node.variable) for node in nodes if node.name() == _LEAF}
        weights = [node.next_functions[1][0] for node in nodes if node.name() == _CONVOLUTION]
        self._kernels = {
            id(node.variable)
            for node in _reachable((w for w in weights if w is not None), _PRODUCTS)
            if node.name() == _LEAF
        }
        self._spread: dict[int, float] = {}
        for node in nodes:
            if node.name() == "AddBackward0":
                for source, _ in node.next_functions:
                    self._find_table(source, math.prod(node._input_metadata[0].shape))

    def used(self, parameter: Tensor) -> bool:
        """Whether the outputs depend on it."""
        return id(parameter) in self._used

    def is_kernel(self, parameter: Tensor) -> bool:
        """Whether a convolution's weight is made of it without another matrix product.

        So also of the direction and length of a normalized weight, or of a masked one.
        """
        return id(parameter) in self._kernels

    def per_row(self, parameter: Tensor) -> float | None:
        """How often each row of a table is used, where all rows in use are used equally often.

        A table (…, rows, features) is added to other values, spread over the samples or looked
        up by equally frequent indices: vectors of positions are. None for any other parameter.
        """
        return self._spread.get(id(parameter))

    def _find_table(self, node: Any, size: int) -> None:
        """Note the table that a summand comes from, if it does.

        Args:
            node: The summand's.
            size: Of the sum.
        """
        looked_up, elements = False, math.inf
        while node is not None and node.name() != _LEAF:
            name = node.name()
            if name in _ROWS_OF:
                _, counts = torch.unique(getattr(node, _ROWS_OF[name]), return_counts=True)
                if looked_up or not len(counts) or bool((counts != counts[0]).any()):
                    return
                looked_up = True
                elements = min(elements, len(counts) * node._input_metadata[0].shape[-1])
            elif name in _KEEP_ROWS or (name == "MulBackward0" and _has_one_source(node)):
                elements = min(elements, math.prod(node._input_metadata[0].shape))
            else:
                return
            node = next(source for source, _ in node.next_functions if source is not None)
        if node is None or node.variable.ndim < 2:
            return
        elements = min(elements, node.variable.numel())
        if elements and (looked_up or size > elements):
            self._spread[id(node.variable)] = size / elements


def _has_one_source(node: Any) -> bool:
    """Whether only one operand depends on parameters, as under dropout or a constant factor."""
    return sum(source is not None for source, _ in node.next_functions) == 1


def leaves_of(value: Tensor) -> list[Tensor]:
    """Return the leaves that a value is made of: parameters, and other tensors with a gradient."""
    if value.grad_fn is None:
        return [value] if value.requires_grad else []
    return [node.variable for node in _reachable([value.grad_fn]) if node.name() == _LEAF]


def _reachable(roots: Iterable[Any], beyond: frozenset[str] = frozenset()) -> list[Any]:
    """Return all nodes that the roots depend on, but for those behind nodes of some names."""
    stack = list(dict.fromkeys(roots))
    seen = dict.fromkeys(stack)  # kept alive: a node's Python object is the same only so long
    while stack:
        node = stack.pop()
        if node.name() in beyond:
            continue
        for child, _ in node.next_functions:
            if child is not None and child not in seen:
                seen[child] = None
                stack.append(child)
    return list(seen)
