"""A basis in which the Gauss-Newton matrix is nearly diagonal, and its diagonal there."""

import functools
from collections.abc import Collection, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.autograd.graph import GradientEdge
from torch.nn.modules.conv import _ConvNd
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.ggn import GGN
from mlhf.curvature.protocol import Loss
from mlhf.curvature.residuals import Residuals
from mlhf.curvature.vectors import flatten, unflatten, upcast, vector_like
from mlhf.optimizers.kfac import fisher
from mlhf.optimizers.kfac.calls import LayerCalls, recording
from mlhf.optimizers.learned.kinds import KINDS, kind_of
from mlhf.optimizers.mlhf.kernels import steps
from mlhf.optimizers.mlhf.kernels.steps import Rotations
from mlhf.optimizers.mlhf.kronecker.blocks import Block, layer_blocks
from mlhf.optimizers.mlhf.kronecker.matrix_block import MatrixBlock
from mlhf.optimizers.mlhf.kronecker.residual_rows import ResidualRows
from mlhf.optimizers.mlhf.kronecker.rotations import are_small, rotations
from mlhf.optimizers.protocol import State
from mlhf.optimizers.running_mean import RunningMean
from mlhf.optimizers.state import restored

_DENSE_KERNEL = KINDS.index("dense_kernel")


class Segment(NamedTuple):
    """Neighbouring coordinates of a vector in the basis.

    Attributes:
        size: How many.
        kind: The kind of their parameters, an index into ``KINDS``.
        damping_factor: What their damping is multiplied by.
    """

    size: int
    kind: int
    damping_factor: float


class Basis:
    """Kronecker eigenbases of a network's layers, from running means over its batches.

    A vector in the basis is flat, (n,): the layers' blocks, then other matrices', then the
    parameters without a block (norms, biases of their own), which are not rotated.

    Args:
        model: The network.
        parameters: What is trained; ``rotate`` takes and ``rotate_back`` returns tensors in
            this order.
        decay: Of the running means; the first few values are averaged with equal weight.
        samples: How many samples of a batch a layer's factors are computed from.
        max_dimension: The largest factor that is kept in full.
        seed: Of the random signs by which a trace is estimated, and of which samples are used.
        unrotated: The ids of parameters that are not rotated, whatever they are.

    Attributes:
        segments: The vector's segments, in order.
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
        unrotated: Collection[int] = (),
    ) -> None:
        _refuse_partly_double(parameters)
        self._model, self._parameters = model, list(parameters)
        self._decay, self._samples = decay, samples
        index = {id(p): i for i, p in enumerate(parameters)}
        self._layers = [
            block
            for block in layer_blocks(model, max_dimension)
            if all(id(p) in index and id(p) not in unrotated for p in block.parameters)
        ]
        in_layers = {id(p) for b in self._layers for p in b.parameters}
        rest = [i for i, p in enumerate(parameters) if id(p) not in in_layers]
        # A matrix too large both ways would gain nothing from two diagonals.
        kernels = {
            id(p)
            for module in model.modules()
            if isinstance(module, _ConvNd)
            for p in module.parameters()
        }
        self._matrices = [
            (i, MatrixBlock(parameters[i], max_dimension, id(parameters[i]) in kernels or None))
            for i in rest
            if parameters[i].ndim > 1
            and parameters[i].numel()
            and id(parameters[i]) not in unrotated
            and min(*parameters[i].flatten(1).shape, *parameters[i].shape[-2:]) <= max_dimension
        ]
        with_block = {i for i, _ in self._matrices}
        self._unrotated = [i for i in rest if i not in with_block]
        self._indices = [[index[id(p)] for p in b.parameters] for b in self._layers]
        self._squares = RunningMean(decay)  # G's diagonal of the parameters without a block
        self._output_square = RunningMean(decay)  # of the loss's gradient at a row of outputs
        self._generator = torch.Generator().manual_seed(seed)
        self._loss_scale: Tensor | None = None
        self._rotations: Rotations | None = None
        self._has_rotations = False
        self._diagonal: Tensor | None = None
        self._rows = ResidualRows(model, self._parameters) if isinstance(model, Residuals) else None
        self._sizes = [block.size for block in self._blocks]
        self._sizes += [self._parameters[i].numel() for i in self._unrotated]
        self.segments = self._find_segments()

    @property
    def diagonal(self) -> Tensor:
        """G's diagonal in the basis, (n,), as of the last ``refresh``."""
        assert self._diagonal is not None
        return self._diagonal

    @property
    def state(self) -> list[object]:
        """The objects whose attributes are its state, and its generator."""
        within = [item for block in self._blocks for item in block.state]
        return [self, self._squares, self._output_square, self._generator, *within]

    @property
    def is_tracked(self) -> bool:
        """Whether any factor is kept as a sketch."""
        return any(block.is_tracked for block in self._blocks)

    @property
    def numbers(self) -> int:
        """How many numbers are kept beside vectors of the parameters' size, at most."""
        unrotated = sum(self._parameters[i].numel() for i in self._unrotated)
        transposed = sum(b.shape[-1] ** 2 for b in self._blocks) if are_small(self._blocks) else 0
        return unrotated + transposed + sum(block.numbers for block in self._blocks)

    @property
    def loss_scale(self) -> Tensor:
        """The root mean square of the loss's gradient at a row of the outputs, a scalar.

        It is in the loss's units: what is multiplied by it does not depend on the loss's scale.
        Cross-entropy begins at about 1. Never quite 0.
        """
        if self._loss_scale is None:  # kept from one update to the next
            assert self._output_square.values is not None
            (square,) = self._output_square.values
            self._loss_scale = square.clamp_min(torch.finfo(square.dtype).tiny).sqrt()
        return self._loss_scale

    @property
    def layers(self) -> list[LayerCalls]:
        """The calls of the layers that have blocks."""
        return [block.calls for block in self._layers]

    def put(self, calls: Sequence[LayerCalls]) -> None:
        """Have calls that were recorded elsewhere for the next ``update``, one for each layer."""
        for block, own in zip(self._layers, calls, strict=True):
            block.calls.put(own)

    def recording(self) -> AbstractContextManager[None]:
        """Record the layers' calls in the forward pass within."""
        return recording([block.calls for block in self._layers])

    def clear(self) -> None:
        """Forget the recorded pass, so that its graph can be freed."""
        for block in self._layers:
            block.calls.clear()

    @property
    def edges(self) -> list[GradientEdge]:
        """Where ``update`` wants the gradients of the recorded pass: the layers' outputs."""
        return [edge for block in self._layers for edge in block.calls.edges]

    @torch.no_grad()
    def update(self, ggn: GGN, multiple: float = 1.0, x: Any = None) -> None:
        """Update the running means from the recorded pass.

        The gradients are those of the data's labels. Their outer products have the Fisher
        matrix as mean only while the network's own labels would be right as often. So their
        total weight is set to G's, by the trace of the loss's Hessian.

        Args:
            ggn: G of that pass, made with ``edges``.
            multiple: What the step's loss is times the pass's.
            x: The batch, where it is known.
        """
        rows = rows_of(ggn.loss_function, ggn.output)
        square = ggn.output_gradient_square()
        # Below it, where data are fitted to the last bit, outer products of the gradients are
        # rounding, and the weight that makes up for it would overflow.
        least = torch.finfo(square.dtype).tiny ** 0.8
        weight = (ggn.output_trace(self._generator) / square.clamp_min(least) / rows).sqrt()
        weight = torch.where(square >= least, weight, 0.0)
        if self._output_square.count == 0 and ggn.output_hessian_is_diagonal():
            independent = ggn.entrywise_nodes()
            for block in self._layers:
                block.decide(independent)
        if multiple != 1:
            weight, square = weight * multiple**0.5, square * multiple**2
        self._output_square.add([square * rows])
        self._loss_scale = None
        drawn = None
        if self._rows is not None and x is not None:
            drawn = self._rows.draw(ggn.loss_function, x, self._generator)
        if drawn is not None and multiple != 1:
            drawn = [t * multiple**0.5 for t in drawn]
        chosen = functools.cache(self._choose)  # the same in all layers
        weight_square = weight.square()
        at = 0
        for block, indices in zip(self._layers, self._indices, strict=True):
            if drawn is not None:
                block.update_by_rows([drawn[i] for i in indices], self._decay)
                continue
            calls = len(block.calls.edges)
            gradients = ggn.edge_gradients[at : at + calls]
            factor: Tensor | float = weight_square
            if block.independent:
                gradients = ggn.diagonal_root_at(block.calls.edges)
                factor = multiple / rows
            block.update(gradients, factor, rows, chosen, self._decay)
            at += calls
        self._observe(ggn, rows)
        for i, matrix in self._matrices:
            if not matrix.undecided:
                matrix.update(weight * upcast(ggn.gradient[i]), rows, self._decay)
        if drawn is not None:
            self._squares.add([upcast(drawn[i]).square().sum(0) for i in self._unrotated])
            return
        of_unrotated = [weight * upcast(ggn.gradient[i]) for i in self._unrotated]
        self._squares.add([g.square() * rows for g in of_unrotated])

    def _choose(self, count: int) -> Tensor | None:
        """Return which of so many samples factors are computed from: batches may be in order."""
        if count <= self._samples:
            return None
        return torch.randperm(count, generator=self._generator)[: self._samples]

    def _observe(self, ggn: GGN, rows: int) -> None:
        """Look at how the pass uses the matrices without a layer, at first."""
        if all(matrix.observed for _, matrix in self._matrices):
            return
        uses = ggn.uses()
        found = [matrix.observe(uses, rows) for _, matrix in self._matrices]
        if any(found):
            self.segments = self._find_segments()

    @property
    def _blocks(self) -> list[Block]:
        return [*self._layers, *(matrix for _, matrix in self._matrices)]

    @property
    def rotations(self) -> Rotations | None:
        """All rotations as one operator takes them; None where it does not.

        Kept from one ``refresh`` to the next.
        """
        if not self._has_rotations:
            self._has_rotations, self._rotations = True, None
            if self._diagonal is not None and steps.fits(self._diagonal):
                members = [*self._indices, *([i] for i, _ in self._matrices)]
                self._rotations = rotations(
                    self._blocks, members, self._unrotated, self._parameters
                )
        return self._rotations

    def refresh(self) -> None:
        """Move the basis to the running means' eigenvectors, and compute G's diagonal there."""
        self._has_rotations = False
        assert self._squares.values is not None
        diagonals = [b.refresh() for b in self._layers]
        diagonals += [b.refresh() for _, b in self._matrices]
        diagonals += self._squares.values
        self._diagonal = torch.cat([t.reshape(-1) for t in diagonals])

    def rotate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return a vector's coordinates in the basis, (n,), given tensors like the parameters."""
        tensors = [upcast(t) for t in tensors]
        rotated = [
            block.rotate([tensors[i] for i in indices])
            for block, indices in zip(self._layers, self._indices, strict=True)
        ]
        rotated += [block.rotate([tensors[i]]) for i, block in self._matrices]
        rotated += [tensors[i] for i in self._unrotated]
        return flatten(rotated)

    def see(self, gradient: Sequence[Tensor], weight_decay: float | Sequence[float]) -> None:
        """Look at a step's gradient, without that of the weight decay, before ``direction``."""
        for i, matrix in self._matrices:
            decay = weight_decay if isinstance(weight_decay, float | int) else weight_decay[i]
            matrix.see(gradient[i], decay)

    def spread(self, values: Sequence[float]) -> Tensor:
        """Return a vector (n,) of values given by parameter; of those in one block the mean."""
        members = [*self._indices, *([i] for i, _ in self._matrices)]
        members += [[i] for i in self._unrotated]
        sizes = [[self._parameters[i].numel() for i in own] for own in members]
        means = [
            sum(values[i] * n for i, n in zip(own, each, strict=True)) / sum(each)
            for own, each in zip(members, sizes, strict=True)
        ]
        like = vector_like(self._parameters)
        pairs = zip(means, sizes, strict=True)
        return torch.cat([like.new_full((sum(each),), mean) for mean, each in pairs])

    def direction(self, vector: Tensor) -> list[Tensor]:
        """Return ``rotate_back(vector)`` without entries that never had a gradient."""
        result = self.rotate_back(vector)
        for i, matrix in self._matrices:
            result[i] = matrix.cleared(result[i])
        return result

    def clear_flat(self, flat: Tensor) -> Tensor:
        """Clear entries that never had a gradient, in place, in the flattened parameters."""
        if any(matrix.clears for _, matrix in self._matrices):
            parts = unflatten(flat, self._parameters)
            for i, matrix in self._matrices:
                if matrix.clears:
                    parts[i].copy_(matrix.cleared(parts[i]))
        return flat

    def rotate_back(self, vector: Tensor) -> list[Tensor]:
        """Invert ``rotate``: return tensors like the parameters, of a vector (n,)."""
        result: list[Tensor] = [vector] * len(self._parameters)
        parts = iter(torch.split_with_sizes(vector, self._sizes))
        for block, indices in zip(self._layers, self._indices, strict=True):
            tensors = block.rotate_back(next(parts).view(block.shape))
            for i, tensor in zip(indices, tensors, strict=True):
                result[i] = tensor
        for i, matrix in self._matrices:
            (result[i],) = matrix.rotate_back(next(parts).view(matrix.shape))
        for i in self._unrotated:
            result[i] = next(parts).view(self._parameters[i].shape)
        return result

    def state_dict(self) -> State:
        return {
            "layers": [b.state_dict() for b in self._layers],
            "matrices": [b.state_dict() for _, b in self._matrices],
            "squares": self._squares.values,
            "count": self._squares.count,
            "output_square": self._output_square.values,
            "generator": self._generator.get_state(),
            "diagonal": self._diagonal,
        }

    def load_state_dict(self, state: State) -> None:
        _refuse_partly_double(self._parameters)
        self._has_rotations = False
        like = vector_like(self._parameters)
        for block, saved in zip(self._layers, state["layers"], strict=True):
            block.load_state_dict(saved, like)
        for (_, matrix), saved in zip(self._matrices, state["matrices"], strict=True):
            matrix.load_state_dict(saved, like)
        squares = {"values": state["squares"], "count": state["count"]}
        self._squares.load_state_dict(squares, like)
        # Older checkpoints have none: then damping had its constant for a loss of scale 1.
        output_square = state.get("output_square") or [like.new_ones(())]
        output = {"values": output_square, "count": state["count"]}
        self._output_square.load_state_dict(output, like)
        self._loss_scale = None
        self._diagonal = restored(state["diagonal"], like)
        self.segments = self._find_segments()
        self._generator.set_state(state["generator"].cpu())

    def _find_segments(self) -> list[Segment]:
        """Return the vector's segments, in order."""
        kind: dict[int, int] = {}
        for module in self._model.modules():
            for name, parameter in module.named_parameters(recurse=False):
                kind.setdefault(id(parameter), kind_of(module, name, parameter))
        for _, matrix in self._matrices:
            if matrix.is_stack:
                kind[id(matrix.parameters[0])] = _DENSE_KERNEL
        found = [Segment(b.size, kind[id(b.parameters[0])], 1.0) for b in self._layers]
        found += [
            Segment(b.size, kind[id(b.parameters[0])], b.damping_factor) for _, b in self._matrices
        ]
        rest = [self._parameters[i] for i in self._unrotated]
        return found + [Segment(p.numel(), kind[id(p)], 1.0) for p in rest]


def _refuse_partly_double(parameters: Sequence[Tensor]) -> None:
    """Raise CurvatureError where some parameters, but not all, are float64."""
    dtypes = {p.dtype for p in parameters}
    if torch.float64 in dtypes and len(dtypes) > 1:
        names = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in dtypes))
        raise CurvatureError(
            f"the parameters are of {names}, and bases of layers are of one precision: convert "
            "the model as a whole (model.float() or model.double())"
        )


def rows_of(loss: Loss, output: Any) -> int:
    """Return over how many rows (samples, or tokens) of a model's output a loss is a mean.

    Of several outputs the first that is no scalar is looked at.
    """
    every = [output] if isinstance(output, Tensor) else pytree.tree_leaves(output)
    leaves = [t for t in every if isinstance(t, Tensor)]
    floating = (t for t in leaves if t.is_floating_point() or t.is_complex())
    return next((fisher.rows_of(loss, t) for t in floating if t.ndim), 1)
