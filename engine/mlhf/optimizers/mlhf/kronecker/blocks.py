"""The blocks in which a network's Gauss-Newton matrix is approximated by Kronecker products.

A block is a matrix of parameters W (out, in) on which G ≈ L ⊗ R, with L (out, out) and R
(in, in) running means. With U_L and U_R their eigenvectors, the approximation is diagonal in the
basis U_L ⊗ U_R: its entries are the products of the eigenvalues.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlhf.curvature.uses import Uses
from mlhf.curvature.vectors import upcast, vector_like
from mlhf.optimizers.kfac.calls import LayerCalls
from mlhf.optimizers.kfac.layers import Call, KroneckerLayer, layers_of
from mlhf.optimizers.mlhf.kronecker.dead_entries import DeadEntries
from mlhf.optimizers.mlhf.kronecker.factor_basis import factor_basis
from mlhf.optimizers.protocol import State
from mlhf.optimizers.running_mean import retention
from mlhf.optimizers.state import restored_list

_LOWEST_SHARE = 0.25  # times √T: the least that is left of the damping of positions
_OBSERVED_UPDATES = 20  # at so many it is looked at how a matrix is used
_INPUT_ROWS = 1024  # of a layer's input are enough for R
_DENSE_UPDATES = 20  # so many updates all include R; then, where a sample has many positions,
_INPUT_INTERVAL = 2  # every second does


class Block:
    """One matrix of parameters, with a bias as its last column.

    Of a factor larger than ``max_dimension`` only the diagonal is kept, and its side is not
    rotated.

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
        self._is_full = [size <= self._max for size in shape[-2:]]
        self._bases = [factor_basis(size, self._max, stack) for size in shape[-2:]]

    @property
    def state(self) -> list[object]:
        """The objects whose attributes are the block's state."""
        return [self, *(part for basis in self._bases for part in basis.state)]

    def rotate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return U_Lᵀ V U_R, in this shape, for V given as tensors shaped like the parameters."""
        if len(tensors) == 2:
            matrix = torch.cat([tensors[0].flatten(1), tensors[1].unsqueeze(1)], 1)
        else:
            matrix = tensors[0].reshape(self.shape)
        left, right = self._bases
        matrix = left.rotate(matrix, left=True, transposed=True)
        return right.rotate(matrix, left=False, transposed=False)

    def rotate_back(self, matrix: Tensor) -> list[Tensor]:
        """Invert ``rotate``: return tensors shaped like the parameters."""
        left, right = self._bases
        matrix = left.rotate(matrix, left=True, transposed=False)
        matrix = right.rotate(matrix, left=False, transposed=True)
        if len(self.parameters) == 1:
            return [matrix.reshape(self.parameters[0].shape)]
        weight, bias = self.parameters
        return [matrix[:, :-1].reshape(weight.shape), matrix[:, -1].reshape(bias.shape)]

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

    def _update(self, left: Tensor, right: Tensor | None, decay: float, interval: int = 1) -> None:
        """Update the running means.

        Args:
            left: This batch's L.
            right: This batch's R; None where this update leaves R out.
            decay: Of the means.
            interval: Updates since R was last included.
        """
        self._count += 1
        if self._factors is None:
            assert right is not None
            self._factors = [left, right]
            return
        kept = retention(decay, self._count)
        old_left, old_right = self._factors  # replaced, not changed: see ``StepGuard``
        self._factors = [torch.lerp(old_left, left, 1 - kept), old_right]
        if right is not None:
            self._factors[1] = torch.lerp(old_right, right, 1 - kept**interval)

    def _scale(self, left: Tensor) -> Tensor | float:
        """Return the factor of L ⊗ R, given L's diagonal in its basis."""
        return 1.0


class LayerBlock(Block):
    """A linear layer or convolution: R is the mean of inputs' aaᵀ, L that of ggᵀ (as in K-FAC).

    Inputs change more slowly than gradients, and R costs more. Where a sample has many
    positions, one batch says much about R, and after the first updates every second one is
    enough. Where it has one position, no sample can be spared.
    """

    def __init__(self, module: nn.Module, layer: KroneckerLayer, max_dimension: int) -> None:
        super().__init__(layer.parameters, max_dimension)
        self.calls = LayerCalls(module)
        self._layer = layer

    def update(
        self,
        gradients: Sequence[Tensor | None],
        weight: Tensor,
        rows: int,
        samples: int,
        decay: float,
    ) -> None:
        """Update L and R from gradients at the recorded calls' edges.

        Args:
            gradients: Of a mean loss, one for each call; None where the loss does not reach.
            weight: Factor of the gradients, a scalar.
            rows: Over how many rows of the network's output the loss is a mean.
            samples: How many along the first dimension are used, at most. Batches are
                shuffled, so the first do.
            decay: Of the running means.
        """
        calls: list[Call] = []
        stride, positions, fraction = 1, 1, 1.0
        for x, g in zip(self.calls.inputs, gradients, strict=True):
            if g is not None and g.numel():  # an expert may get no rows
                x, g = self._layer.batched(x), self._layer.batched(g)
                used = min(samples, len(g))
                # Under autocast both may be of low precision, in which no factor has
                # eigenvectors.
                some = upcast(g[:used])
                if not calls:
                    fraction = used / len(g)
                elif fraction != used / len(g):
                    some = some * (fraction * len(g) / used) ** 0.5
                positions = max(1, g[0].numel() // self.shape[0])
                stride, enough = _subsampling(positions, max(1, g.ndim - 2), used)
                calls.append((upcast(x[: min(used, enough)]), [some]))
        if calls:
            left = self._layer.output_factor(calls, rows)
            left.mul_(weight.square() * (rows**2 / fraction))
            interval = _INPUT_INTERVAL if positions > 1 and self._count >= _DENSE_UPDATES else 1
            due = self._count % interval == 0
            right = self._layer.input_factor(calls, stride) if due else None
            self._update(left, right, decay, interval)


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


class MatrixBlock(Block):
    """Any other matrix (recurrent, attention, embedding), from its gradient as a whole.

    For labels as likely as the network says, N times the outer product of the mean gradient
    over N rows has the Fisher matrix as its mean (Liu et al. 2023). L and R are its partial
    traces, which determine the Kronecker product up to the trace that both have.

    A parameter of three or more dimensions is a convolution's kernel, (out, in·…), or a stack
    of matrices, (…, out, in), each with an L and an R of its own: experts, heads. Which it is
    shows when it is used; until then its gradient is zero.

    Args:
        parameter: It.
        max_dimension: The largest factor that is kept in full.
        is_kernel: Whether it is a kernel; None where its use will tell.
    """

    def __init__(self, parameter: Tensor, max_dimension: int, is_kernel: bool | None) -> None:
        super().__init__([parameter], max_dimension)
        self._is_kernel = True if parameter.ndim == 2 else is_kernel
        self._positions: float | None = None  # T; 1 for what is not spread over positions
        self._share = 1.0  # of what the table is added to, in mean square
        self._dead = DeadEntries()

    @property
    def state(self) -> list[object]:
        return [*super().state, self._dead]

    def see(self, gradient: Tensor, weight_decay: float) -> None:
        """Look at a step's gradient, without that of the weight decay."""
        if self._dead.mask is not None:
            whole = gradient.add(self.parameters[0], alpha=weight_decay)
            self._dead.see(whole.reshape(self.shape))

    def cleared(self, direction: Tensor) -> Tensor:
        """Return a direction like the parameter without entries that never had a gradient."""
        mask = self._dead.mask
        return direction if mask is None else direction * mask.view_as(direction)

    @property
    def damping_factor(self) -> float:
        """What the damping is multiplied by; 1 but for a table of positions.

        A row that belongs to one of T positions sees a T-th of the data. Its gradient and its
        curvature are T times smaller, but √v̂, which is mostly noise, only √T times. As long as
        the table is small against what it is added to, this holds it back.
        """
        if self._positions is None or self._positions <= 1:
            return 1.0
        lowest: float = _LOWEST_SHARE * self._positions**-0.5
        return min(1.0, max(self._share, lowest))

    def observe(self, uses: Uses, rows: int) -> bool:
        """Look at how a pass uses the parameter; return whether that is news.

        A chance may make tokens equally frequent in one batch, so that several are looked at.

        Args:
            uses: Of the pass.
            rows: Over how many rows of the network's output the loss is a mean.
        """
        (parameter,) = self.parameters
        if not uses.used(parameter):
            return False
        before = self._is_kernel, self.damping_factor
        if self.undecided:
            self.decide(uses.is_kernel(parameter))
        per_row = uses.per_row(parameter)
        positions = 1.0 if per_row is None else max(1.0, rows / per_row)
        self._positions = min(positions, self._positions or positions)
        if self._positions > 1:
            share = uses.share(parameter)
            self._share = 1.0 if share is None else share
        return before != (self._is_kernel, self.damping_factor)

    @property
    def observed(self) -> bool:
        """Whether enough passes were looked at; a table of positions grows."""
        return self._positions == 1 and self._count >= _OBSERVED_UPDATES

    @property
    def undecided(self) -> bool:
        """Whether it is not known yet if this is a kernel or a stack."""
        return self._is_kernel is None

    @property
    def is_stack(self) -> bool:
        """Whether this is a stack of matrices."""
        return self._is_kernel is False

    def decide(self, is_kernel: bool) -> None:
        """Say which it is."""
        self._is_kernel = is_kernel
        if not is_kernel:
            *stack, out, inner = self.parameters[0].shape
            self._set_shape(math.prod(stack), out, inner)

    def update(self, gradient: Tensor, rows: int, decay: float) -> None:
        """Update L and R from the gradient of a mean loss over ``rows`` rows of the output."""
        g = gradient.reshape(self.shape)
        self._dead.update(g)
        g = g * rows**0.5
        left = g @ g.mT if self._is_full[0] else g.square().sum(-1)
        right = g.mT @ g if self._is_full[1] else g.square().sum(-2)
        self._update(left, right, decay)

    def _scale(self, left: Tensor) -> Tensor:
        tiny = torch.finfo(left.dtype).tiny
        return 1 / left.sum(-1).clamp_min(tiny)[..., None, None]

    def state_dict(self) -> State:
        use = {"is_kernel": self._is_kernel, "positions": self._positions, "share": self._share}
        return {**super().state_dict(), **use, "dead": self._dead.state_dict()}

    def load_state_dict(self, state: State, like: Tensor) -> None:
        # Older checkpoints took all of them for kernels.
        is_kernel = state.get("is_kernel", True)
        self._set_shape(len(self.parameters[0]), self.size // len(self.parameters[0]))
        if is_kernel is not None:
            self.decide(is_kernel)
        self._positions, self._share = state.get("positions"), state.get("share", 1.0)
        self._dead.load_state_dict(state.get("dead"), like)
        super().load_state_dict(state, like)


def layer_blocks(model: nn.Module, max_dimension: int) -> list[LayerBlock]:
    """Return a block for each linear layer and convolution that shares no parameter."""
    return [
        LayerBlock(module, layer, max_dimension)
        for module, layer in layers_of(model, max_dimension)
        if isinstance(layer, KroneckerLayer)
    ]
