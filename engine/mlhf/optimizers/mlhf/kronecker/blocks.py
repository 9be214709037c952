"""The blocks in which a network's Gauss-Newton matrix is approximated by Kronecker products.

A block is a matrix of parameters W (out, in) on which G ≈ L ⊗ R, with L (out, out) and R
(in, in) running means. With U_L and U_R their eigenvectors, the approximation is diagonal in the
basis U_L ⊗ U_R: its entries are the products of the eigenvalues.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mlhf.curvature.pytree_loss import upcast
from mlhf.optimizers.kfac.calls import LayerCalls
from mlhf.optimizers.kfac.layers import Call, KroneckerLayer, layers_of
from mlhf.optimizers.mlhf.kronecker.factor_basis import factor_basis
from mlhf.optimizers.protocol import State
from mlhf.optimizers.running_mean import retention
from mlhf.optimizers.state import restored_list

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
        shape: (out, in), a bias's column counted.
    """

    def __init__(self, parameters: Sequence[Tensor], max_dimension: int) -> None:
        self.parameters = list(parameters)
        matrix = parameters[0].flatten(1)
        self.shape = (len(matrix), matrix.shape[1] + len(parameters) - 1)
        self._is_full = [size <= max_dimension for size in self.shape]
        self._bases = [factor_basis(size, max_dimension) for size in self.shape]
        self._factors: list[Tensor] | None = None  # L and R
        self._count = 0

    @property
    def size(self) -> int:
        """The number of coordinates."""
        return self.shape[0] * self.shape[1]

    @property
    def state(self) -> list[object]:
        """The objects whose attributes are the block's state."""
        return [self, *self._bases]

    def rotate(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return U_Lᵀ V U_R, (out, in), for V given as tensors shaped like the parameters."""
        matrix = tensors[0].flatten(1)
        if len(tensors) == 2:
            matrix = torch.cat([matrix, tensors[1].unsqueeze(1)], 1)
        left, right = self._bases
        matrix = left.rotate(matrix, left=True, transposed=True)
        return right.rotate(matrix, left=False, transposed=False)

    def rotate_back(self, matrix: Tensor) -> list[Tensor]:
        """Invert ``rotate``: return tensors shaped like the parameters, of a matrix (out, in)."""
        left, right = self._bases
        matrix = left.rotate(matrix, left=True, transposed=False)
        matrix = right.rotate(matrix, left=False, transposed=True)
        if len(self.parameters) == 1:
            return [matrix.reshape(self.parameters[0].shape)]
        weight, bias = self.parameters
        return [matrix[:, :-1].reshape(weight.shape), matrix[:, -1].reshape(bias.shape)]

    def refresh(self) -> Tensor:
        """Move the bases to the factors' eigenvectors; return G's diagonal there, (out, in)."""
        if self._factors is None:  # the loss never reached it
            return self.parameters[0].new_zeros(self.shape)
        left, right = (
            basis.refresh(factor).clamp_min(0)
            for basis, factor in zip(self._bases, self._factors, strict=True)
        )
        return torch.outer(left, right) * self._scale(left)

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
            if g is not None:
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
    """

    def update(self, gradient: Tensor, rows: int, decay: float) -> None:
        """Update L and R from the gradient of a mean loss over ``rows`` rows of the output."""
        g = gradient.flatten(1) * rows**0.5
        left = g @ g.T if self._is_full[0] else g.square().sum(1)
        right = g.T @ g if self._is_full[1] else g.square().sum(0)
        self._update(left, right, decay)

    def _scale(self, left: Tensor) -> Tensor:
        tiny = torch.finfo(left.dtype).tiny
        return 1 / left.sum().clamp_min(tiny)


def layer_blocks(model: nn.Module, max_dimension: int) -> list[LayerBlock]:
    """Return a block for each linear layer and convolution that shares no parameter."""
    return [
        LayerBlock(module, layer, max_dimension)
        for module, layer in layers_of(model, max_dimension)
        if isinstance(layer, KroneckerLayer)
    ]
