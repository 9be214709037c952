"""The blocks in which a network's Gauss-Newton matrix is taken as a Kronecker product.

A block is a matrix of parameters W (out, in), G ≈ L ⊗ R on it with L (out, out) and R (in, in)
running means, and U_L, U_R their eigenvectors: in the basis U_L ⊗ U_R the approximation is
diagonal, its entries the products of the eigenvalues.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge, get_gradient_edge

from mlhf.curvature.pytree_loss import upcast
from mlhf.optimizers.kfac.layers import Call, Kronecker, layer_of
from mlhf.optimizers.mlhf.kronecker.side import side_of
from mlhf.optimizers.protocol import State

_ROWS = 1024  # of a layer's input are enough for its means
_EACH = 20  # updates that all take a layer's inputs in; then, of many positions,
_INPUTS = 2  # every second does


class Block:
    """One matrix of parameters, a bias as its last column.

    A side longer than ``max_dimension`` keeps only its factor's diagonal, and is not rotated.

    Args:
        parameters: A weight, flattened to (out, rest), and perhaps its bias (out,).
        max_dimension: The longest side that is rotated.
    """

    def __init__(self, parameters: Sequence[Tensor], max_dimension: int) -> None:
        self.parameters = list(parameters)
        matrix = parameters[0].flatten(1)
        self.shape = (len(matrix), matrix.shape[1] + len(parameters) - 1)
        self._whole = [side <= max_dimension for side in self.shape]
        self._sides = [side_of(side, max_dimension) for side in self.shape]
        self._factors: list[Tensor] | None = None
        self._count = 0

    def rotate(self, parts: Sequence[Tensor]) -> Tensor:
        """Return U_Lᵀ V U_R, shape (out, in), for V given as the parameters are."""
        matrix = parts[0].flatten(1)
        if len(parts) == 2:
            matrix = torch.cat([matrix, parts[1].unsqueeze(1)], 1)
        left, right = self._sides
        matrix = left.apply(matrix, left=True, transposed=True)
        return right.apply(matrix, left=False, transposed=False)

    def back(self, matrix: Tensor) -> list[Tensor]:
        """Return what ``rotate`` made this of."""
        left, right = self._sides
        matrix = left.apply(matrix, left=True, transposed=False)
        matrix = right.apply(matrix, left=False, transposed=True)
        if len(self.parameters) == 1:
            return [matrix.reshape(self.parameters[0].shape)]
        weight, bias = self.parameters
        return [matrix[:, :-1].reshape(weight.shape), matrix[:, -1].reshape(bias.shape)]

    def refresh(self) -> Tensor:
        """Turn to the factors' present eigenvectors; return G's diagonal there, (out, in)."""
        if self._factors is None:  # the loss never reached it
            return self.parameters[0].new_zeros(self.shape)
        left, right = (
            side.turn(factor).clamp_min(0)
            for side, factor in zip(self._sides, self._factors, strict=True)
        )
        return torch.outer(left, right) * self._scale(left)

    def state_dict(self) -> State:
        sides = [side.state_dict() for side in self._sides]
        return {"count": self._count, "factors": self._factors, "sides": sides}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._count = int(state["count"])
        factors = state["factors"]
        self._factors = None if factors is None else [t.to(like, copy=True) for t in factors]
        for side, saved in zip(self._sides, state["sides"], strict=True):
            side.load_state_dict(saved, like)

    def _add(self, left: Tensor, right: Tensor | None, decay: float, since: int = 1) -> None:
        """Take new factors into the running means.

        Args:
            right: None where only L is seen anew.
            since: Updates since R was last seen.
        """
        self._count += 1
        if self._factors is None:
            assert right is not None
            self._factors = [left, right]
            return
        kept = min(decay, 1 - 1 / self._count)
        self._factors[0].lerp_(left, 1 - kept)
        if right is not None:
            self._factors[1].lerp_(right, 1 - kept**since)

    def _scale(self, left: Tensor) -> Tensor | float:
        return 1.0


class LayerBlock(Block):
    """A linear layer or convolution: R the mean of inputs' aaᵀ, L that of ggᵀ (as in K-FAC).

    Inputs change slower than gradients and cost more. Where a sample has many positions, a
    batch tells much of them: after the first updates every second one is enough. Where it has
    one, each sample is missed.
    """

    def __init__(self, module: nn.Module, layer: Kronecker, max_dimension: int) -> None:
        super().__init__(layer.parameters, max_dimension)
        self.module = module
        self._layer = layer
        self._calls: list[tuple[Tensor, GradientEdge]] = []

    def note(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        """A forward hook. The edge is kept, not the output: that may be changed in place."""
        if output.requires_grad:
            self._calls.append((inputs[0].detach(), get_gradient_edge(output)))

    def forget(self) -> None:
        self._calls = []

    @property
    def edges(self) -> list[GradientEdge]:
        """Where the gradients of the layer's outputs pass, one for each call."""
        return [edge for _, edge in self._calls]

    def add(
        self,
        gradients: Sequence[Tensor | None],
        weight: Tensor,
        rows: int,
        samples: int,
        decay: float,
    ) -> None:
        """See gradients at the edges, for a mean loss over so many rows of the output.

        Each counts ``weight`` times itself. At most ``samples`` along the first dimension are
        looked at: of a shuffled batch, any.
        """
        calls: list[Call] = []
        every, places, share = 1, 1, 1.0
        for (x, _), g in zip(self._calls, gradients, strict=True):
            if g is not None:
                seen = min(samples, len(g))
                # Under autocast either may be of low precision, in which no factor has
                # eigenvectors.
                part = upcast(g[:seen])
                if not calls:
                    share = seen / len(g)
                elif share != seen / len(g):
                    part = part * (share * len(g) / seen) ** 0.5
                places = max(1, g[0].numel() // self.shape[0])
                every, enough = _spread(places, max(1, g.ndim - 2), seen)
                calls.append((upcast(x[: min(seen, enough)]), [part]))
        if calls:
            left = self._layer.of_outputs(calls, rows)
            left.mul_(weight.square() * (rows**2 / share))
            since = _INPUTS if places > 1 and self._count >= _EACH else 1
            due = self._count % since == 0
            right = self._layer.of_inputs(calls, every) if due else None
            self._add(left, right, decay, since)


def _spread(places: int, ways: int, samples: int) -> tuple[int, int]:
    """Return of how many positions each way to look at one, and samples that then are enough.

    Positions of one sample tell less than those of several.
    """
    every = max(1, int(min(places, samples * places / _ROWS) ** (1 / ways)))
    return every, -(-_ROWS * every**ways // places)


class MatrixBlock(Block):
    """Any other matrix (recurrent, attention, embedding), from its whole gradient alone.

    For labels as likely as the network says, N times the outer product of the mean gradient over N
    rows has the Fisher matrix as its mean (Liu et al. 2023); L and R are its partial traces,
    which fix the Kronecker product up to the trace that both have.
    """

    def add(self, gradient: Tensor, rows: int, decay: float) -> None:
        """See the gradient of a mean loss over so many rows of the output."""
        g = gradient.flatten(1) * rows**0.5
        left = g @ g.T if self._whole[0] else g.square().sum(1)
        right = g.T @ g if self._whole[1] else g.square().sum(0)
        self._add(left, right, decay)

    def _scale(self, left: Tensor) -> Tensor:
        tiny = torch.finfo(left.dtype).tiny
        return 1 / left.sum().clamp_min(tiny)


def blocks_of(model: nn.Module, max_dimension: int) -> tuple[list[LayerBlock], set[int]]:
    """Return a block for each layer that shares no parameter, and those parameters' ids."""
    users: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                users[id(parameter)] = users.get(id(parameter), 0) + 1
    blocks: list[LayerBlock] = []
    for module in model.modules():
        layer = layer_of(module, max_dimension)
        if isinstance(layer, Kronecker) and all(users[id(p)] == 1 for p in layer.parameters):
            blocks.append(LayerBlock(module, layer, max_dimension))
    return blocks, {id(p) for block in blocks for p in block.parameters}
