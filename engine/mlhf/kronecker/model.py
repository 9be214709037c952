"""The batch's quadratic model, on a subspace that grows direction by direction."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from engine.curvature.ggn import GGN
from engine.mlhf.kronecker.basis import Basis
from engine.mlhf.kronecker.subspace import curvatures, minimum
from engine.optimizers.hessian_free import unflatten


class Direction(NamedTuple):
    """One vector in both coordinates: turning it is dear, so that it is done once.

    Attributes:
        turned: In the basis, (n,).
        plain: As the parameters are, one after the other, (n,).
    """

    turned: Tensor
    plain: Tensor


def combined(parts: Tensor, directions: Sequence[Direction]) -> Direction:
    """Return the sum of the directions times their parts, (m,)."""
    turned, plain = (parts @ torch.stack(list(each)) for each in zip(*directions, strict=True))
    return Direction(turned, plain)


class QuadraticModel:
    """m(d) = ½dᵀ(G + S)d − bᵀd for d in the span of the directions added so far.

    Args:
        ggn: G.
        basis: In which vectors are given, (n,).
        b: The gradient there.
        s: The diagonal of S there.

    Attributes:
        directions: Those directions.
        own: ⟨q_i, Gq_j⟩, (m, m), without damping.
        matrix: The same of G + S.
        pull: ⟨q_i, b⟩, (m,).
        parts: The minimum's coefficients, (m,).
    """

    def __init__(self, ggn: GGN, basis: Basis, b: Tensor, s: Tensor) -> None:
        self._ggn, self._basis, self._b, self._s = ggn, basis, b, s
        self._tangents: list[list[Tensor]] = []
        self._pulled: list[list[Tensor]] = []
        self.directions: list[Direction] = []

    def add(self, *directions: Direction) -> None:
        """Widen the subspace, by a tangent pass for each direction, and find the minimum."""
        for q in directions:
            self.directions.append(q)
            self._tangents.append(self._ggn.jvp(unflatten(q.plain, self._ggn.parameters)))
            self._pulled.append(self._ggn.hessian(self._tangents[-1]))
        stacked = torch.stack([q.turned for q in self.directions])
        self.own = curvatures(self._tangents, self._pulled)
        self.matrix = self.own + (stacked * self._s) @ stacked.T
        self.pull = stacked @ self._b
        self.parts = minimum(self.matrix, self.pull).to(self._b)

    def curvatures(self, diagonal: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return dᵀGd, dᵀ(G + S)d and dᵀDd at the minimum d, for a diagonal D (n,); all above 0."""
        d = combined(self.parts, self.directions).turned
        own, damped = (self.parts @ matrix @ self.parts for matrix in (self.own, self.matrix))
        tiny = torch.finfo(d.dtype).tiny
        told = torch.dot(d * diagonal, d)
        return own.clamp_min(tiny), damped.clamp_min(tiny), told.clamp_min(tiny)

    @property
    def lowers(self) -> Tensor:
        """−m at the minimum, a scalar."""
        return torch.dot(self.parts, self.pull - 0.5 * (self.matrix @ self.parts))

    def residual(self) -> Tensor:
        """Return b − (G + S)d at the minimum, (n,), by a backward pass."""
        outputs = zip(*self._pulled, strict=True)
        pulled = [torch.stack(list(w)) for w in outputs]
        h = [torch.tensordot(self.parts.to(w), w, 1) for w in pulled]
        d = combined(self.parts, self.directions).turned
        return self._b - self._basis.rotate(self._ggn.vjp(h)) - self._s * d
