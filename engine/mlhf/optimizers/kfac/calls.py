"""The calls of a layer in one forward pass: its inputs, and where gradients will pass."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge


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

    def record(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook. It keeps the edge, since the output may be changed in place later."""
        if output.requires_grad:
            self.inputs.append(inputs[0].detach())
            self.edges.append(get_gradient_edge(output))

    def clear(self) -> None:
        """Forget the calls, so that the graph can be freed."""
        self.inputs, self.edges = [], []


@contextmanager
def recording(layers: Sequence[LayerCalls]) -> Iterator[None]:
    """Record each layer's calls in the forward passes within, and no earlier ones."""
    for layer in layers:
        layer.clear()  # an earlier pass may have failed
    hooks = [layer.module.register_forward_hook(layer.record) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
