"""A loss whose backward pass fills ``.grad`` and keeps the graph, for the products of a step.

``loss.backward()`` frees a graph as it goes, and products need it afterwards. So the loss's own
graph is one node above the leaves, and that node's backward goes through the network's graph,
which it keeps.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mlhf.curvature.errors import REENTRANT, CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.linearize import dense, topological

COMPILED = (
    "this forward pass ran as torch.compile compiled it, and the graph of that cannot be "
    "differentiated twice: call the model as it was written, or let the step run it: step(x, y)"
)


class PassGraph:
    """The graph of a pass.

    Args:
        outputs: Where it ends.

    Attributes:
        nodes: All its nodes.
        leaves: The tensors that it starts from and that require a gradient.

    Raises:
        CurvatureError: for a graph that can be gone through only once, or in plain passes only.
    """

    def __init__(self, outputs: Sequence[Tensor]) -> None:
        nodes = topological([get_gradient_edge(t).node for t in outputs])
        names = {node.name() for node in nodes}
        if "CheckpointFunctionBackward" in names:
            raise CurvatureError(REENTRANT)
        if "CompiledFunctionBackward" in names:
            raise CurvatureError(COMPILED)
        self.nodes = set(nodes)
        self.leaves: list[Tensor] = [
            node.variable for node in nodes if node.name() == "torch::autograd::AccumulateGrad"
        ]


class RecordedPass:
    """The loss of one forward pass, with its Gauss-Newton matrix.

    Args:
        matrix: Its matrix, without a gradient so far.
        leaves: What the backward pass fills the gradients of.

    Attributes:
        matrix: The matrix; its ``gradient`` and ``edge_gradients`` are set by a backward pass
            with edges.
        factors: What the loss was multiplied by in each backward pass so far, scalars.
        edges: Where in the graph the gradient is wanted too.
    """

    def __init__(self, matrix: GGN, leaves: Sequence[Tensor]) -> None:
        self._matrix: GGN | None = matrix
        self._leaves = list(leaves)
        self._on_backward: Callable[[], None] = lambda: None
        self.factors: list[Tensor] = []
        self.edges: list[GradientEdge] = []

    @property
    def matrix(self) -> GGN:
        if self._matrix is None:
            raise CurvatureError(
                "a backward pass through a loss whose step was taken, or that zero_grad() forgot: "
                "call backward() before step(), and zero_grad() before the loss"
            )
        return self._matrix

    def loss(self, on_backward: Callable[[], None]) -> Tensor:
        """Return the loss, a scalar with a graph.

        Args:
            on_backward: Called before each backward pass through it.
        """
        self._on_backward = on_backward
        loss: Tensor = _Loss.apply(self, *self._leaves)  # type: ignore[no-untyped-call]
        return loss

    def backward(self, factor: Tensor, needed: Sequence[bool]) -> list[Tensor | None]:
        """Return the gradients of ``factor`` times the loss, one for each leaf.

        Args:
            factor: A scalar.
            needed: Of which leaves; the others get None.
        """
        matrix = self.matrix
        self._on_backward()
        own = matrix.parameters if self.edges else []
        wanted = [leaf for leaf, is_needed in zip(self._leaves, needed, strict=True) if is_needed]
        index = {id(leaf): i for i, leaf in enumerate(wanted)}
        also = [p for p in own if id(p) not in index]
        found = matrix.backward(factor, [*wanted, *also, *self.edges])
        self.factors.append(factor.detach())
        if self.edges:
            by_id = {id(t): g for t, g in zip([*wanted, *also], found, strict=False)}
            matrix.gradient = [_plain(by_id[id(p)], p, factor) for p in own]
            matrix.edge_gradients = [
                None if g is None else g / factor.to(g) for g in found[len(wanted) + len(also) :]
            ]
            self.edges = []
        at = iter(found)
        return [next(at) if is_needed else None for is_needed in needed]

    def gradient(self) -> list[Tensor]:
        """Return the gradient in the matrix's parameters, which leaves ``.grad`` alone."""
        matrix = self.matrix
        one = torch.ones_like(matrix.loss)
        found = matrix.backward(one, [*matrix.parameters, *self.edges])
        count = len(matrix.parameters)
        matrix.gradient = dense(found[:count], matrix.parameters)
        matrix.edge_gradients = list(found[count:])
        self.factors.append(one)
        return matrix.gradient

    def release(self) -> None:
        """Let go of the graph, however long the loss itself is kept."""
        self._matrix, self._leaves, self.edges = None, [], []


class _Loss(torch.autograd.Function):
    """The loss of a pass as a function of the pass's leaves."""

    @staticmethod
    def forward(ctx: Any, recorded: RecordedPass, *_: Tensor) -> Tensor:
        ctx.recorded = recorded
        return recorded.matrix.loss.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, factor: Tensor) -> tuple[Tensor | None, ...]:
        return (None, *ctx.recorded.backward(factor, ctx.needs_input_grad[1:]))


def _plain(gradient: Tensor | None, parameter: Tensor, factor: Tensor) -> Tensor:
    """Return the gradient of the loss itself, dense."""
    if gradient is None:
        return torch.zeros_like(parameter)
    dense = gradient if gradient.layout is torch.strided else gradient.to_dense()
    return dense / factor.to(dense)
