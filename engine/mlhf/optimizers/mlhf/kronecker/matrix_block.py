"""The block of a matrix that no layer's call tells about: its factors come from its gradient."""

import math

import torch
from torch import Tensor

from mlhf.curvature.uses import Uses
from mlhf.optimizers.mlhf.kronecker.blocks import Block
from mlhf.optimizers.mlhf.kronecker.dead_entries import DeadEntries
from mlhf.optimizers.mlhf.kronecker.sparse_rows import live_rows, with_rows
from mlhf.optimizers.protocol import State

_LOWEST_SHARE = 0.25  # times √T: the least that is left of the damping of positions
_OBSERVED_UPDATES = 20  # at so many it is looked at how a matrix is used


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

    @property
    def numbers(self) -> int:
        return (
            super().numbers + self.size + self.size // 4
        )  # of dead entries: a mask, and a bit each

    def see(self, gradient: Tensor, weight_decay: float) -> None:
        """Look at a step's gradient, without that of the weight decay."""
        if self._dead.mask is not None:
            whole = gradient.add(self.parameters[0], alpha=weight_decay)
            self._dead.see(whole.reshape(self.shape))

    @property
    def clears(self) -> bool:
        """Whether ``cleared`` has anything to do."""
        return self._dead.mask is not None

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
        live = None if self._is_full[0] or self._tracked(0) else live_rows(g)
        self._dead.update(g, live)
        some = (g if live is None else g[live]) * rows**0.5
        left = some @ some.mT if self._is_full[0] else some.square().sum(-1)
        left = left if live is None else with_rows(g, live, left)
        right = some.mT @ some if self._is_full[1] else some.square().sum(-2)
        self._limit(rows)
        left_rows = some.mT if self._tracked(0) else None
        self._update(left, right, decay, rows=(left_rows, some if self._tracked(1) else None))

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
