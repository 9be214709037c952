"""Rows of a Jacobian from one backward pass for each output, by the inputs of layers.

The gradient at a layer's output, and its input, tell each sample's gradient in the layer's
parameters. So the rows of n samples with k outputs cost k backward passes, not n·k (Goodfellow
2015, "Efficient per-example gradient computations"). That holds where samples do not mix, and
each layer's parameters are used in its own calls alone: whoever uses this checks it.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mlhf.curvature.forward_pass import plain_forward_pass
from mlhf.curvature.hooks import register_reading
from mlhf.curvature.jacobian.blocks import Block, DenseBlock, JacobianRows, LinearBlock
from mlhf.curvature.jacobian.chunks import Chunk, Unsuitable
from mlhf.curvature.linearize import backward
from mlhf.curvature.microbatches import Microbatch, take_samples


class _Layer:
    """A module with parameters of its own, and its calls in the last forward pass."""

    def __init__(self, module: nn.Module, trained: set[int]) -> None:
        self.module = module
        own = {name: p for name, p in module._parameters.items() if p is not None}
        self.names = [name for name, p in own.items() if id(p) in trained]
        self.parameters = [own[name] for name in self.names]
        self.linear = type(module) is nn.Linear and self.names[:1] == ["weight"]
        self.linear = self.linear and len(self.names) == len(own)
        self.calls: list[tuple[tuple[Any, ...], GradientEdge]] = []
        self.others = False  # whether it was called in a way that no rule covers

    def record(self, module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        if not isinstance(output, Tensor) or not all(isinstance(a, Tensor) for a in args):
            self.others = True
        elif output.requires_grad:
            self.calls.append((tuple(a.detach() for a in args), get_gradient_edge(output)))

    def block(self, gradients: Sequence[Tensor]) -> Block:
        """Return the columns of the layer's parameters.

        Args:
            gradients: For each call, g of shape (n, k, …): at its output, for each row.
        """
        first = self.calls[0][0][0]
        if self.linear and len(self.calls) == 1 and first.ndim == 2:
            return LinearBlock(self.parameters, first, gradients[0])
        total: Tensor | None = None
        for (args, _), g in zip(self.calls, gradients, strict=True):
            found = self._per_sample(args, g)
            total = found if total is None else total + found
        assert total is not None
        return DenseBlock(self.parameters, total)

    def _per_sample(self, args: tuple[Tensor, ...], gradients: Tensor) -> Tensor:
        """Return (n·k, numel) from the layer's own derivative, sample by sample."""
        own = {name: p.detach() for name, p in zip(self.names, self.parameters, strict=True)}

        def of_sample(g: Tensor, *sample: Tensor) -> Tensor:
            def layer(parameters: dict[str, Tensor]) -> Tensor:
                batch = tuple(a.unsqueeze(0) for a in sample)
                z: Tensor = torch.func.functional_call(self.module, parameters, batch)
                return z.squeeze(0)

            pull = torch.func.vjp(layer, own)[1]
            found = torch.func.vmap(lambda row: pull(row)[0])(g)
            return torch.cat([found[name].flatten(1) for name in self.names], 1)

        rows: Tensor = torch.func.vmap(of_sample)(gradients, *args)
        return rows.flatten(0, 1)


class EdgeJacobian:
    """Rows by the edges of layers.

    Args:
        model: The network, which returns one tensor.
        parameters: θ.

    Raises:
        Unsuitable: where a parameter belongs to no layer, to several, or to one that contains
            others.
    """

    def __init__(self, model: nn.Module, parameters: Sequence[Tensor]) -> None:
        self._model = model
        self._parameters = list(parameters)
        trained = {id(p) for p in parameters}
        owners = [
            m for m in model.modules() if any(id(p) in trained for p in m._parameters.values())
        ]
        self._layers = [_Layer(module, trained) for module in owners]
        users = [id(p) for layer in self._layers for p in layer.parameters]
        if len(users) != len(trained) or set(users) != trained:
            raise Unsuitable("a parameter is shared by layers, or belongs to none")
        if any(next(layer.module.children(), None) is not None for layer in self._layers):
            raise Unsuitable("a layer with parameters contains others")
        self.factored = all(layer.linear for layer in self._layers)
        self._x: Any = None
        self._z: Tensor | None = None

    def forward(self, x: Any) -> Tensor:
        self._x = x
        z = self._pass(x)
        return z.detach()

    def _pass(self, x: Any) -> Tensor:
        for layer in self._layers:
            layer.calls, layer.others = [], False
        hooks = register_reading(
            lambda layer=layer: layer.module.register_forward_hook(layer.record)  # type: ignore[misc]
            for layer in self._layers
        )
        try:
            z = plain_forward_pass(self._model, x)
        finally:
            for hook in hooks:
                hook.remove()
        if not isinstance(z, Tensor) or any(layer.others for layer in self._layers):
            raise Unsuitable("a layer, or the network, returns something else than a tensor")
        self._z = z
        n = len(z) if z.ndim else 0
        self.factored = True
        for layer in self._layers:
            if any(len(a) != n if a.ndim else True for args, _ in layer.calls for a in args):
                raise Unsuitable("the samples are not the rows of a layer's input")
            calls = layer.calls
            self.factored &= layer.linear and len(calls) < 2
            self.factored &= not calls or calls[0][0][0].ndim == 2
        return z

    def chunks(self, root: Tensor, most: int) -> list[Chunk]:
        n, k, _ = root.shape
        size = max(1, most // k)
        if size >= n or self.factored:
            return [Chunk(0, n * k, lambda: self._rows(root))]
        return [
            Chunk(start * k, min(start + size, n) * k, lambda s=start: self._part(root, s, size))  # type: ignore[misc]
            for start in range(0, n, size)
        ]

    def _part(self, root: Tensor, start: int, size: int) -> JacobianRows:
        stop = min(start + size, len(root))
        self._pass(take_samples(self._x, Microbatch(start, stop, 1.0, 1.0)))
        return self._rows(root[start:stop])

    def _rows(self, root: Tensor) -> JacobianRows:
        assert self._z is not None
        called = [layer for layer in self._layers if layer.calls]
        edges = [edge for layer in called for _, edge in layer.calls]
        found = []
        for j in range(root.shape[1]):
            w = root[:, j].reshape(self._z.shape)
            gradients = backward([self._z], edges, [w])
            if any(g is None for g in gradients):
                raise Unsuitable("a layer's output has no gradient")
            found.append(gradients)
        at = iter([torch.stack([f[i] for f in found], 1) for i in range(len(edges))])  # type: ignore[misc]
        with torch.no_grad():
            blocks = [layer.block([next(at) for _ in layer.calls]) for layer in called]
        return JacobianRows(blocks, self._parameters)

    def clear(self) -> None:
        self._x = self._z = None
        for layer in self._layers:
            layer.calls = []
