"""The batch's quadratic model, on a subspace that grows direction by direction."""

import torch
from torch import Tensor

from engine.curvature.ggn import GGN
from engine.mlhf.kronecker.basis import Basis
from engine.mlhf.kronecker.subspace import curvatures, minimum


class QuadraticModel:
    """m(d) = ½dᵀ(G + S)d − bᵀd for d in the span of the directions added so far.

    Args:
        ggn: G.
        basis: In which vectors are given, (n,).
        b: The gradient there.
        s: The diagonal of S there.

    Attributes:
        directions: Their vectors in the basis.
        own: ⟨q_i, Gq_j⟩, (m, m), without damping.
        matrix: The same of G + S.
        pull: ⟨q_i, b⟩, (m,).
        parts: The minimum's coefficients, (m,).
    """

    def __init__(self, ggn: GGN, basis: Basis, b: Tensor, s: Tensor) -> None:
        self._ggn, self._basis, self._b, self._s = ggn, basis, b, s
        self._tangents: list[list[Tensor]] = []
        self._pulled: list[list[Tensor]] = []
        self.directions: list[Tensor] = []

    def add(self, *directions: Tensor) -> None:
        """Widen the subspace, by a tangent pass for each direction, and find the minimum."""
        for q in directions:
            self.directions.append(q)
            self._tangents.append(self._ggn.jvp(self._basis.back(q)))
            self._pulled.append(self._ggn.hessian(self._tangents[-1]))
        stacked = torch.stack(self.directions)
        self.own = curvatures(self._tangents, self._pulled)
        self.matrix = self.own + (stacked * self._s) @ stacked.T
        self.pull = stacked @ self._b
        self.parts = minimum(self.matrix, self.pull).to(self._b)

    @property
    def lowers(self) -> Tensor:
        """−m at the minimum, a scalar."""
        return torch.dot(self.parts, self.pull - 0.5 * (self.matrix @ self.parts))

    def residual(self) -> Tensor:
        """Return b − (G + S)d at the minimum, (n,), by a backward pass."""
        outputs = zip(*self._pulled, strict=True)
        pulled = [torch.stack(list(w)) for w in outputs]
        h = [torch.tensordot(self.parts.to(w), w, 1) for w in pulled]
        d = self.parts @ torch.stack(self.directions)
        return self._b - self._basis.rotate(self._ggn.vjp(h)) - self._s * d
