"""The calls of a layer in one forward pass: its inputs, and where gradients will pass."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mlhf.curvature.hooks import register_reading


class LayerCalls:
    """Records the calls of one module.

    Attributes:
        module: The module.
        inputs: The first argument of each call, detached.
        edges: Where the gradient of each call's output passes in the graph.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.inputs: list[Tensor] = []
        self.edges: list[GradientEdge] = []

    def record(
        self, module: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any
    ) -> None:
        """A forward hook. It keeps the edge, since the output may be changed in place later.

        A hook of the user's may have replaced the output by something else than a tensor.
        """
        if isinstance(output, Tensor) and output.requires_grad:
            x = args[0] if args else next(iter(kwargs.values()))
            self.inputs.append(x.detach())
            self.edges.append(get_gradient_edge(output))

    def taken(self, nodes: Collection[Any]) -> "LayerCalls":
        """Return the calls whose output is among the nodes of a graph; the others stay."""
        result = LayerCalls(self.module)
        rest = LayerCalls(self.module)
        for x, edge in zip(self.inputs, self.edges, strict=True):
            to = result if edge.node in nodes else rest
            to.inputs.append(x)
            to.edges.append(edge)
        self.inputs, self.edges = rest.inputs, rest.edges
        return result

    def put(self, calls: "LayerCalls") -> None:
        """Have these calls, which ``taken`` returned, in place of its own."""
        self.inputs, self.edges = calls.inputs, calls.edges

    def clear(self) -> None:
        """Forget the calls, so that the graph can be freed."""
        self.inputs, self.edges = [], []


@contextmanager
def recording(layers: Sequence[LayerCalls]) -> Iterator[None]:
    """Record each layer's calls in the forward passes within, and no earlier ones."""
    for layer in layers:
        layer.clear()  # an earlier pass may have failed
    hooks = register_reading(
        partial(layer.module.register_forward_hook, layer.record, with_kwargs=True)
        for layer in layers
    )
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
