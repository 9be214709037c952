"""The blocks in which a network's Gauss-Newton matrix is approximated by Kronecker products.

A block is a matrix of parameters W (out, in) on which G ≈ L ⊗ R, with L (out, out) and R
(in, in) running means. With U_L and U_R their eigenvectors, the approximation is diagonal in the
basis U_L ⊗ U_R: its entries are the products of the eigenvalues.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.vectors import upcast, vector_like
from mlhf.optimizers.kfac.calls import LayerCalls
from mlhf.optimizers.kfac.layers import Call, KroneckerLayer, layers_of
from mlhf.optimizers.mlhf.kronecker.factor_basis import (
    MIN_TRACKED,
    Eigenbasis,
    IdentityBasis,
    LeadingEigenbasis,
    Stack,
    factor_basis,
    is_tracked,
)
from mlhf.optimizers.mlhf.kronecker.rotation import both_sides
from mlhf.optimizers.mlhf.kronecker.sparse_rows import live_rows, with_rows
from mlhf.optimizers.mlhf.kronecker.tracked import TrackedEigenbasis
from mlhf.optimizers.protocol import State
from mlhf.optimizers.running_mean import retention
from mlhf.optimizers.state import restored_list

_INPUT_ROWS = 1024  # of a layer's input are enough for R
_DENSE_UPDATES = 20  # so many updates all include R; then, where a sample has many positions,
_INPUT_INTERVAL = 2  # every second does
_LARGE, _ALIGNED = 1 << 18, 16  # numbers of a block, from which on its rows are aligned
_ROWS_A_VECTOR = 4  # of a batch, for each eigenvector that a tracked side has
_FEW_ROWS = 512  # so many numbers a row in a block, and its long sides have no more either

Chosen = Callable[[int], Tensor | None]  # from how many samples to indices, or None for all


class Block:
    """One matrix of parameters, with a bias as its last column.

    Of a factor larger than ``max_dimension`` only the diagonal is kept, and its side is not
    rotated. Of one that would cost too much, the diagonal and a sketch are (``tracked.py``).

    Args:
        parameters: A weight, flattened to (out, rest), and perhaps its bias (out,).
        max_dimension: The largest factor that is kept in full.

    Attributes:
        parameters: The same.
        size: The number of coordinates.
        shape: (out, in), a bias's column counted; of a stack of matrices (E, out, in).
    """

    def __init__(self, parameters: Sequence[Tensor], max_dimension: int) -> None:
        self.parameters = list(parameters)
        self.size = sum(p.numel() for p in parameters)
        self._max = max_dimension
        self._factors: list[Tensor] | None = None  # L and R
        self._count = 0
        out = len(parameters[0])
        self._set_shape(out, self.size // out)

    def _set_shape(self, *shape: int) -> None:
        self.shape = shape
        stack = shape[0] if len(shape) == 3 else None
        pairs = [(shape[-2], shape[-1]), (shape[-1], shape[-2])]
        self._is_full = [
            n <= self._max and not is_tracked(n, self._max, m, stack is not None) for n, m in pairs
        ]
        self._bases = [factor_basis(n, self._max, stack, m) for n, m in pairs]

    @property
    def state(self) -> list[object]:
        """The objects whose attributes are the block's state."""
        return [self, *(part for basis in self._bases for part in basis.state)]

    @property
    def is_tracked(self) -> bool:
        """Whether a side's factor is kept as a sketch."""
        return any(self._tracked(side) for side in (0, 1))

    @property
    def numbers(self) -> int:
        """How many numbers the block's factors and bases take, at most."""
        stack = self.shape[0] if len(self.shape) == 3 else 1
        each = zip(self._bases, self.shape[-2:], strict=True)
        # Bases of a stack in one object have as many as there are matrices.
        return sum(b.numbers(n) * (1 if isinstance(b, Stack) else stack) for b, n in each)

    @property
    def sides(self) -> tuple[Tensor | None, Tensor | None] | None:
        """U_L and U_R, None for the identity; None in all where they are not kept as matrices."""
        found = []
        for basis in self._bases:
            if isinstance(basis, Eigenbasis):
                found.append(basis.vectors)
            elif isinstance(basis, IdentityBasis):
                found.append(None)
            else:
                return None
        return (found[0], found[1]) if len(self.shape) == 2 else None

    def rotate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return U_Lᵀ V U_R, in this shape, for V given as tensors shaped like the parameters."""
        if len(tensors) == 1:
            return self._rotated(tensors[0].reshape(self.shape), there=True)
        weight, bias = tensors
        parts = [weight if weight.ndim == 2 else weight.flatten(1), bias.unsqueeze(1)]
        if self.size < _LARGE:
            matrix = torch.cat(parts, 1)
        else:
            matrix = self._aligned(parts[0])
            matrix[:, :-1], matrix[:, -1:] = parts
        return self._rotated(matrix, there=True, overwrite=True)

    def _aligned(self, like: Tensor) -> Tensor:
        """Return an empty matrix of this shape whose rows begin at multiples of 64 bytes.

        Products are written to such a matrix two to three times as fast.
        """
        rows, length = self.shape
        return like.new_empty(rows, -(-length // _ALIGNED) * _ALIGNED)[:, :length]

    def _rotated(self, matrix: Tensor, *, there: bool, overwrite: bool = False) -> Tensor:
        """Return U_Lᵀ M U_R, or U_L M U_Rᵀ; with ``overwrite`` M may be lost."""
        left, right = self._bases
        live = live_rows(matrix) if isinstance(left, IdentityBasis) else None
        if live is not None:
            rows = right.rotate(matrix[live], left=False, transposed=not there, overwrite=True)
            return with_rows(matrix, live, rows)
        if isinstance(left, TrackedEigenbasis) and isinstance(right, TrackedEigenbasis):
            each = left.rotation, right.rotation
            both = both_sides(*each, matrix, there=there, overwrite=overwrite)
            if both is not None:
                return both
        once = left.rotate(matrix, left=True, transposed=there, overwrite=overwrite)
        own = overwrite or once is not matrix
        return right.rotate(once, left=False, transposed=not there, overwrite=own)

    def rotate_back(self, matrix: Tensor) -> list[Tensor]:
        """Invert ``rotate``: return tensors shaped like the parameters."""
        large = len(self.parameters) == 2 and self.size >= _LARGE
        if large:
            matrix = self._aligned(matrix).copy_(matrix)
        matrix = self._rotated(matrix, there=False, overwrite=large)
        if len(self.parameters) == 1:
            return [matrix.reshape(self.parameters[0].shape)]
        weight, bias = matrix.split_with_sizes([self.shape[1] - 1, 1], 1)
        shape = self.parameters[0].shape
        return [weight if len(shape) == 2 else weight.reshape(shape), bias.squeeze(1)]

    def refresh(self) -> Tensor:
        """Move the bases to the factors' eigenvectors; return G's diagonal there."""
        if self._factors is None:  # the loss never reached it
            return vector_like(self.parameters).new_zeros(self.shape)
        left, right = (
            basis.refresh(factor).clamp_min(0)
            for basis, factor in zip(self._bases, self._factors, strict=True)
        )
        return left.unsqueeze(-1) * right.unsqueeze(-2) * self._scale(left)

    def state_dict(self) -> State:
        bases = [basis.state_dict() for basis in self._bases]
        return {"count": self._count, "factors": self._factors, "sides": bases}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self._count = int(state["count"])
        self._factors = restored_list(state["factors"], like)
        for basis, saved in zip(self._bases, state["sides"], strict=True):
            basis.load_state_dict(saved, like)
        for side in (0, 1):
            self._adopt(side)

    def _adopt(self, side: int) -> None:
        """Turn a factor that older checkpoints kept in full into a sketch."""
        bases, stack = self._tracked(side), self.shape[:-2]
        if self._factors is None or not bases or self._factors[side].ndim == len(stack) + 1:
            return
        whole = self._factors[side]
        for basis, factor in zip(bases, whole if stack else [whole], strict=True):
            basis.adopt(factor)
        self._factors[side] = whole.diagonal(dim1=-2, dim2=-1).contiguous()

    def _update(
        self,
        left: Tensor,
        right: Tensor | None,
        decay: float,
        interval: int = 1,
        rows: tuple[Tensor | None, Tensor | None] = (None, None),
    ) -> None:
        """Update the running means.

        Args:
            left: This batch's L.
            right: This batch's R; None where this update leaves R out.
            decay: Of the means.
            interval: Updates since R was last included.
            rows: (…, m, n) for each side that is tracked, their outer products L or R.
        """
        self._count += 1
        kept = retention(decay, self._count)
        for side, new in enumerate(rows):
            if new is not None:
                bases, each = self._tracked(side), new if new.ndim == 3 else [new]
                for basis, x in zip(bases, each, strict=True):
                    basis.include(x, kept if side == 0 else kept**interval)
        if self._factors is None:
            assert right is not None
            self._factors = [left, right]
            return
        old_left, old_right = self._factors  # replaced, not changed: see ``StepGuard``
        self._factors = [torch.lerp(old_left, left, 1 - kept), old_right]
        if right is not None:
            self._factors[1] = torch.lerp(old_right, right, 1 - kept**interval)

    def _tracked(self, side: int) -> list[TrackedEigenbasis]:
        """Return the bases of a side that is tracked, one for each matrix of a stack; else none."""
        basis = self._bases[side]
        if isinstance(basis, Stack):
            return basis.tracked
        return [basis] if isinstance(basis, TrackedEigenbasis) else []

    def _limit(self, rows: int) -> None:
        """Have few eigenvectors where a batch has few rows, and costs less than rotations."""
        for side in (0, 1):
            for basis in self._tracked(side):
                basis.limit(_most_vectors(rows))

    def _scale(self, left: Tensor) -> Tensor | float:
        """Return the factor of L ⊗ R, given L's diagonal in its basis."""
        return 1.0


class LayerBlock(Block):
    """A linear layer or convolution: R is the mean of inputs' aaᵀ, L that of ggᵀ (as in K-FAC).

    Inputs change more slowly than gradients, and R costs more. Where a sample has many
    positions, one batch says much about R, and after the first updates every second one is
    enough. Where it has one position, no sample can be spared.

    Attributes:
        independent: Whether G is known to be diagonal in the outputs, which then are not rotated.
    """

    def __init__(self, module: nn.Module, layer: KroneckerLayer, max_dimension: int) -> None:
        super().__init__(layer.parameters, max_dimension)
        self.calls = LayerCalls(module)
        self._layer = layer
        self.independent = False

    def decide(self, independent: Collection[Any]) -> None:
        """Leave the outputs unrotated where L is known to be diagonal.

        The gradients of the data's targets are correlated where the network's errors are, as
        those of neighbouring pixels: their eigenvectors would be the wrong ones.

        Args:
            independent: The nodes of the recorded pass in whose values G is diagonal.
        """
        edges = self.calls.edges
        if self.shape[0] > 1 and edges and all(edge.node in independent for edge in edges):
            self._leave_outputs()

    def _leave_outputs(self) -> None:
        self.independent = True
        self._is_full = [False, self._is_full[1]]
        self._bases = [IdentityBasis(), self._bases[1]]

    def state_dict(self) -> State:
        return {**super().state_dict(), "independent": self.independent}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        self.independent = False
        self._set_shape(*self.shape)
        if state.get("independent", False):  # older checkpoints have rotated them
            self._leave_outputs()
        super().load_state_dict(state, like)

    def update(
        self,
        gradients: Sequence[Tensor | None],
        square: Tensor | float,
        rows: int,
        chosen: Chosen,
        decay: float,
    ) -> None:
        """Update L and R from gradients at the recorded calls' edges.

        Args:
            gradients: Of a mean loss, one for each call; None where the loss does not reach.
            square: Factor of the gradients' squares.
            rows: Over how many rows of the network's output the loss is a mean.
            chosen: Tells which samples are used.
            decay: Of the running means.
        """
        calls: list[Call] = []
        stride, positions, fraction, seen = 1, 1, 1.0, 0
        for x, g in zip(self.calls.inputs, gradients, strict=True):
            if g is not None and g.numel():  # an expert may get no rows
                x, g = self._layer.batched(x), self._layer.batched(g)
                which = chosen(len(g))
                used = len(g) if which is None else len(which)
                # Under autocast both may be of low precision, in which no factor has
                # eigenvectors.
                some = upcast(g if which is None else g[which.to(g.device)])
                seen = len(g)
                if not calls:
                    fraction = used / len(g)
                elif fraction != used / len(g):
                    some = some * (fraction * len(g) / used) ** 0.5
                positions = max(1, g[0].numel() // self.shape[0])
                stride, enough = _subsampling(positions, max(1, g.ndim - 2), used)
                few = slice(min(used, enough)) if which is None else which[:enough].to(x.device)
                calls.append((upcast(x[few]), [some]))
        if calls:
            self._limit(positions * seen)
            self._limit_leading(positions * seen)
            interval = _INPUT_INTERVAL if positions > 1 and self._count >= _DENSE_UPDATES else 1
            scale = square * (rows**2 / fraction)
            left, left_rows = self._left(calls, rows, scale)
            right, right_rows = None, None
            if self._count % interval == 0:
                right, right_rows = self._right(calls, stride)
            self._update(left, right, decay, interval, (left_rows, right_rows))

    def _limit_leading(self, rows: int) -> None:
        """Have few eigenvectors of long sides where a batch has few rows for the block's size.

        More of them cost time, and make large steps in directions of which the batches know
        little but noise.
        """
        if self.size > _FEW_ROWS * rows:
            for basis in self._bases:
                if isinstance(basis, LeadingEigenbasis):
                    basis.limit(_most_vectors(rows))

    def _left(
        self, calls: Sequence[Call], rows: int, scale: Tensor | float
    ) -> tuple[Tensor, Tensor | None]:
        """Return L, or its diagonal, and the rows that it is made of where it is tracked."""
        if not self._tracked(0):
            left = self._layer.output_factor(calls, rows, diagonal=self.independent)
            return left.mul_(scale), None
        x = self._layer.output_rows(calls, rows) * scale**0.5
        return x.square().sum(0), x

    def _right(self, calls: Sequence[Call], stride: int) -> tuple[Tensor, Tensor | None]:
        """Return R, or its diagonal, and the rows that it is made of where it is tracked."""
        if not self._tracked(1):
            return self._layer.input_factor(calls, stride), None
        x = self._layer.input_rows(calls, stride)
        return x.square().sum(0), x

    def update_by_rows(self, rows: Sequence[Tensor], decay: float) -> None:
        """Update L and R from rows of G's root, a tensor (rows, …) like each parameter."""
        matrices = rows[0].flatten(2)
        if len(rows) == 2:
            matrices = torch.cat([matrices, rows[1].unsqueeze(2)], 2)
        matrices = upcast(matrices)
        trace = matrices.square().sum()  # of the block: L has it, and R 1
        tiny = torch.finfo(trace.dtype).tiny
        out, inner = matrices.shape[1:]
        sides = (
            matrices.mT.reshape(-1, out),
            matrices.reshape(-1, inner) * trace.clamp_min(tiny).rsqrt(),
        )
        self._limit(len(matrices))
        # Contiguous, as a checkpoint restores them: products depend on it to the last bit.
        left, right = (
            (x.T @ x).contiguous() if full else x.square().sum(0)
            for x, full in zip(sides, self._is_full, strict=True)
        )
        tracked = [x if self._tracked(side) else None for side, x in enumerate(sides)]
        self._update(left, right, decay, rows=(tracked[0], tracked[1]))


def _most_vectors(rows: int) -> int:
    """Return how many eigenvectors batches of so many rows can tell."""
    return max(MIN_TRACKED, rows // _ROWS_A_VECTOR)


def _subsampling(positions: int, dimensions: int, samples: int) -> tuple[int, int]:
    """Return the stride at which to use positions, and how many samples then are enough.

    Positions of one sample say less than those of several, so positions are skipped first.

    Args:
        positions: How many a sample has.
        dimensions: Along how many dimensions they lie.
        samples: How many there are.
    """
    stride = max(1, int(min(positions, samples * positions / _INPUT_ROWS) ** (1 / dimensions)))
    return stride, -(-_INPUT_ROWS * stride**dimensions // positions)


def layer_blocks(model: nn.Module, max_dimension: int) -> list[LayerBlock]:
    """Return blocks of linear layers and convolutions that share no parameter, nor are empty."""
    return [
        LayerBlock(module, layer, max_dimension)
        for module, layer in layers_of(model, max_dimension)
        if isinstance(layer, KroneckerLayer) and all(p.numel() for p in layer.parameters)
    ]
