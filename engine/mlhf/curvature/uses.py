"""How a forward pass uses parameters, read from its graph."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

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


_REORDER = frozenset(["PermuteBackward0", "TBackward0", "TransposeBackward0"])


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
        self._tables: dict[int, Table] = {}
        for node in nodes:
            if node.name() == "AddBackward0":
                for source, _ in node.next_functions:
                    self._find_table(source, node)
        self._mean_squares = _mean_squares(nodes, [t.sum for t in self._tables.values()])

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
        table = self._tables.get(id(parameter))
        return None if table is None else table.per_row

    def share(self, parameter: Tensor) -> float | None:
        """The mean square of a table's rows in use over that of the sum it is added to.

        None where it is no table, or nothing kept the sum for its backward pass. Waits for the
        device.
        """
        table = self._tables.get(id(parameter))
        whole = None if table is None else self._mean_squares.get(table.sum)
        if table is None or whole is None:
            return None
        rows = parameter.detach().reshape(-1, parameter.shape[-1])
        used = rows[: table.rows] if table.indices is None else rows[table.indices]
        return float(used.square().mean() / whole)

    def _find_table(self, node: Any, total: Any) -> None:
        """Note the table that a summand comes from, if it does.

        Args:
            node: The summand's.
            total: The sum's.
        """
        size = math.prod(total._input_metadata[0].shape)
        indices, elements = None, math.inf
        while node is not None and node.name() != _LEAF:
            name = node.name()
            if name in _ROWS_OF:
                found, counts = torch.unique(getattr(node, _ROWS_OF[name]), return_counts=True)
                if indices is not None or not len(counts) or bool((counts != counts[0]).any()):
                    return
                indices = found
                elements = min(elements, len(counts) * node._input_metadata[0].shape[-1])
            elif _keeps_rows(node):
                elements = min(elements, math.prod(node._input_metadata[0].shape))
            else:
                return
            node = next(source for source, _ in node.next_functions if source is not None)
        if node is None or node.variable.ndim < 2:
            return
        elements = int(min(elements, node.variable.numel()))
        if elements and (indices is not None or size > elements):
            rows = max(1, elements // node.variable.shape[-1])
            self._tables[id(node.variable)] = Table(size / elements, rows, indices, total)


class Table(NamedTuple):
    """A parameter of which rows are added to other values.

    Attributes:
        per_row: How often each row in use is used.
        rows: How many are.
        indices: Which; None for the first.
        sum: The node of the sum.
    """

    per_row: float
    rows: int
    indices: Tensor | None
    sum: Any


def _mean_squares(nodes: Sequence[Any], sums: Iterable[Any]) -> dict[Any, Tensor]:
    """Return the mean squares of sums that a node they go into has kept.

    Args:
        nodes: Of the pass.
        sums: The sums' nodes.
    """
    users: dict[Any, list[tuple[Any, int]]] = {total: [] for total in sums}
    if not users:
        return {}
    for node in nodes:
        for index, (source, _) in enumerate(node.next_functions):
            users.setdefault(source, []).append((node, index))
    found: dict[Any, Tensor] = {}
    for total in sums:
        size, stack = math.prod(total._input_metadata[0].shape), [total]
        while stack and total not in found:
            for user, index in users.get(stack.pop(), []):
                kept = _operand(user, index)
                if kept is not None and kept.numel() == size:
                    found[total] = kept.detach().square().mean()
                elif user.name() in _REORDER or _keeps_rows(user):
                    stack.append(user)
    return found


def _operand(node: Any, index: int) -> Tensor | None:
    """Return what a node has kept of an operand, if it has."""
    names = ("_saved_input", "_saved_self") if index == 0 else ("_saved_mat1",)
    for name in names if index < 2 else ():
        kept = getattr(node, name, None)
        if isinstance(kept, Tensor):
            return kept
    return None


def _keeps_rows(node: Any) -> bool:
    return node.name() in _KEEP_ROWS or (node.name() == "MulBackward0" and _has_one_source(node))


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
