"""A basis in which the Gauss-Newton matrix is nearly diagonal, and its diagonal there."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.utils import _pytree as pytree

from mlhf.curvature.ggn import GGN
from mlhf.optimizers.kfac import fisher
from mlhf.optimizers.learned.kinds import kind_of, positions_of
from mlhf.optimizers.mlhf.kronecker.blocks import MatrixBlock, blocks_of
from mlhf.optimizers.protocol import State

_POSITIONS_SHARE = 0.25  # of the damping, for what is spread over positions


class Part(NamedTuple):
    """A run of coordinates of a vector in the basis.

    Attributes:
        size: How many.
        kind: Of the parameters.
        damped: Factor of their damping.
    """

    size: int
    kind: int
    damped: float


class Basis:
    """Kronecker eigenbases of a network's layers, from running means over its batches.

    Vectors in the basis are flat, (n,): the layers' blocks, then other matrices', then what
    has no block (norms, biases of their own), which is not rotated.

    Args:
        model: The network.
        parameters: What is trained; results of ``back`` are in this order.
        decay: Of the running means; the first few updates are means of all there were.
        samples: Samples of a batch that a layer's factors are taken from.
        max_dimension: The longest side of a matrix that is rotated.
        seed: Of the signs by which a trace is estimated.
    """

    def __init__(
        self,
        model: nn.Module,
        parameters: Sequence[Tensor],
        *,
        decay: float,
        samples: int,
        max_dimension: int,
        seed: int,
    ) -> None:
        self._model, self._parameters = model, list(parameters)
        self._decay, self._samples = decay, samples
        index = {id(p): i for i, p in enumerate(parameters)}
        layers, owned = blocks_of(model, max_dimension)
        self._layers = [b for b in layers if all(id(p) in index for p in b.parameters)]
        owned = {id(p) for b in self._layers for p in b.parameters}
        rest = [i for i, p in enumerate(parameters) if id(p) not in owned]
        # A matrix that is long both ways would gain nothing from two diagonals.
        self._matrices = [
            (i, MatrixBlock([parameters[i]], max_dimension))
            for i in rest
            if parameters[i].ndim > 1 and min(parameters[i].flatten(1).shape) <= max_dimension
        ]
        with_block = {i for i, _ in self._matrices}
        self._plain = [i for i in rest if i not in with_block]
        self._where = [[index[id(p)] for p in b.parameters] for b in self._layers]
        self._squares: list[Tensor] | None = None
        self._count = 0
        self._generator = torch.Generator().manual_seed(seed)
        self.diagonal: Tensor | None = None  # of G in the basis, (n,)
        self.parts = self._parts()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Note what the next forward pass of the model does."""
        self.forget()  # an earlier pass that failed
        hooks = [b.module.register_forward_hook(b.note) for b in self._layers]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def forget(self) -> None:
        """Let go of the forward pass, so that its graph can be freed."""
        for block in self._layers:
            block.forget()

    @property
    def edges(self) -> list[GradientEdge]:
        """Where in the watched pass's graph the gradient is wanted: the layers' outputs."""
        return [edge for block in self._layers for edge in block.edges]

    @torch.no_grad()
    def update(self, ggn: GGN) -> None:
        """Take the watched pass into the running means: that of this G, made with ``edges``.

        Its gradients are the data's, so their outer products have the Fisher matrix as mean
        only while the network's own labels would be as often right. What they weigh together
        is therefore set to G's, by the trace of the loss's Hessian.
        """
        rows = _rows(ggn.output)
        root = (ggn.output_ratio(self._generator) / rows).sqrt()
        at = 0
        for block in self._layers:
            calls = len(block.edges)
            block.add(ggn.edge_gradients[at : at + calls], root, rows, self._samples, self._decay)
            at += calls
        for i, matrix in self._matrices:
            matrix.add(root * ggn.gradient[i], rows, self._decay)
        squares = [(root * ggn.gradient[i]).square() * rows for i in self._plain]
        self._count += 1
        if self._squares is None:
            self._squares = squares
        elif squares:
            weight = 1 - min(self._decay, 1 - 1 / self._count)
            torch._foreach_lerp_(self._squares, squares, weight)

    def refresh(self) -> None:
        """Turn the basis to the present means, and take G's diagonal from them."""
        assert self._squares is not None
        parts = [b.refresh() for b in self._layers]
        parts += [b.refresh() for _, b in self._matrices]
        self.diagonal = torch.cat([t.reshape(-1) for t in (*parts, *self._squares)])

    def of_curvature(self) -> Tensor:
        """Return G's diagonal in the basis, (n,), as of the last turn."""
        assert self.diagonal is not None
        return self.diagonal

    def rotate(self, parts: Sequence[Tensor]) -> Tensor:
        """Return a vector shaped as the parameters in the basis, (n,)."""
        turned = [
            block.rotate([parts[i] for i in where])
            for block, where in zip(self._layers, self._where, strict=True)
        ]
        turned += [block.rotate([parts[i]]) for i, block in self._matrices]
        turned += [parts[i] for i in self._plain]
        return torch.cat([t.reshape(-1) for t in turned])

    def back(self, vector: Tensor) -> list[Tensor]:
        """Return what ``rotate`` made this of, shaped as the parameters."""
        result: list[Tensor] = [vector] * len(self._parameters)
        at = 0
        for block, where in zip(self._layers, self._where, strict=True):
            size = block.shape[0] * block.shape[1]
            for i, part in zip(where, block.back(vector[at : at + size].view(block.shape)),
                               strict=True):  # fmt: skip
                result[i] = part
            at += size
        for i, matrix in self._matrices:
            size = matrix.shape[0] * matrix.shape[1]
            (result[i],) = matrix.back(vector[at : at + size].view(matrix.shape))
            at += size
        for i in self._plain:
            size = self._parameters[i].numel()
            result[i] = vector[at : at + size].view(self._parameters[i].shape)
            at += size
        return result

    def state_dict(self) -> State:
        return {
            "layers": [b.state_dict() for b in self._layers],
            "matrices": [b.state_dict() for _, b in self._matrices],
            "squares": self._squares,
            "count": self._count,
            "generator": self._generator.get_state(),
            "diagonal": self.diagonal,
        }

    def load_state_dict(self, state: State) -> None:
        like = self._parameters[0]
        for block, saved in zip(self._layers, state["layers"], strict=True):
            block.load_state_dict(saved, like)
        for (_, matrix), saved in zip(self._matrices, state["matrices"], strict=True):
            matrix.load_state_dict(saved, like)
        squares, diagonal = state["squares"], state["diagonal"]
        self._squares = None if squares is None else [t.to(like, copy=True) for t in squares]
        self.diagonal = None if diagonal is None else diagonal.to(like, copy=True)
        self._count = int(state["count"])
        self._generator.set_state(state["generator"])

    def _parts(self) -> list[Part]:
        """Return the vector's parts, in order.

        A position embedding's row is part of one in T positions: its gradient is T times
        smaller, the root of its mean square only √T times, and that is the damping's measure.
        """
        kind: dict[int, int] = {}
        damped: dict[int, float] = {}
        for path, module in self._model.named_modules():
            for name, parameter in module.named_parameters(recurse=False):
                kind.setdefault(id(parameter), kind_of(module, name, parameter))
                positions = positions_of(path, module, name, parameter)
                factor = 1.0 if positions == 1 else _POSITIONS_SHARE * positions**-0.5
                damped.setdefault(id(parameter), factor)
        rest = [self._parameters[i] for i in (*(i for i, _ in self._matrices), *self._plain)]
        found = [(b.shape[0] * b.shape[1], b.parameters[0]) for b in self._layers]
        found += [(parameter.numel(), parameter) for parameter in rest]
        return [Part(size, kind[id(p)], damped[id(p)]) for size, p in found]


def _rows(output: Any) -> int:
    """Return over how many rows (samples, or tokens) of what a model returned a loss is a mean."""
    leaves = pytree.tree_leaves(output)
    first = next(t for t in leaves if isinstance(t, Tensor) and t.is_floating_point())
    return fisher.rows(first)
