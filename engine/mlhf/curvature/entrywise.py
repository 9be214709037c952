"""Where in a graph values are from which the outputs are computed entry by entry.

Each entry of such a value has entries of the outputs to itself. So where the loss's Hessian in
the outputs is diagonal, as for independent outputs, its Gauss-Newton matrix in the value is too.
"""

from collections.abc import Iterable
from typing import Any

from torch import Tensor

# Each entry of what they return depends on one entry of each argument, and an entry of an argument
# has entries of what they return to itself.
_ENTRYWISE = frozenset(
    f"{name}Backward{version}"
    for version in (0, 1)
    for name in (
        *("Add", "Sub", "Mul", "Div", "Neg", "Pow", "Exp", "Log", "Sqrt", "Clamp", "Where"),
        *("Sigmoid", "LogSigmoid", "Tanh", "Softplus", "Relu", "LeakyRelu", "Elu", "Gelu", "Silu"),
        *("Hardtanh", "Hardsigmoid", "Sin", "Cos", "NativeDropout", "Clone", "ToCopy", "Cat"),
        *("View", "UnsafeView", "ReshapeAlias", "Squeeze", "Unsqueeze", "Transpose", "T"),
        *("Permute", "Expand", "Slice", "Select", "Stack", "Split", "UnsafeSplit", "Unbind"),
    )
)


def entrywise_nodes(outputs: Iterable[Tensor]) -> set[Any]:
    """Return the graph's nodes whose values the outputs are computed from entry by entry.

    What reaches the outputs on another way too, as both halves of a gated unit do, is left out.

    Args:
        outputs: A model's, with their graph.
    """
    once: set[Any] = set()
    mixed: list[Any] = []  # what is behind these, or reached again, is mixed
    waiting = [z.grad_fn for z in outputs if z.grad_fn is not None]
    while waiting:
        node = waiting.pop()
        if node in once:
            mixed.append(node)
            continue
        once.add(node)
        sources = [source for source, _ in node.next_functions if source is not None]
        if node.name() in _ENTRYWISE:
            waiting += sources
        else:
            mixed += sources
    behind: set[Any] = set()
    while mixed:
        node = mixed.pop()
        if node not in behind:
            behind.add(node)
            mixed += [source for source, _ in node.next_functions if source is not None]
    return once - behind
