"""How a forward pass uses parameters, read from its graph."""

from collections.abc import Iterable, Sequence
from typing import Any

from torch import Tensor
from torch.autograd.graph import get_gradient_edge

_LEAF = "torch::autograd::AccumulateGrad"
_CONVOLUTION = "ConvolutionBackward0"
# Beyond these a parameter is no longer a factor of what comes out, but has been used.
_PRODUCTS = frozenset(
    [_CONVOLUTION, "MmBackward0", "AddmmBackward0", "BmmBackward0", "BaddbmmBackward0"]
)


class Uses:
    """The parameters that a pass uses, and which of them are kernels of a convolution.

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

    def used(self, parameter: Tensor) -> bool:
        """Whether the outputs depend on it."""
        return id(parameter) in self._used

    def is_kernel(self, parameter: Tensor) -> bool:
        """Whether a convolution's weight is made of it without another matrix product.

        So also of the direction and length of a normalized weight, or of a masked one.
        """
        return id(parameter) in self._kernels


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
