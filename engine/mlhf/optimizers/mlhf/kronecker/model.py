"""The batch's quadratic model, on a subspace that grows direction by direction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlhf.curvature.ggn import GGN
from mlhf.curvature.vectors import unflatten
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.subspace import (
    Numbers,
    curvatures,
    inner,
    minimum,
)

_TINY = torch.finfo(torch.float32).tiny


class Direction(NamedTuple):
    """One vector in both coordinates: turning it is dear, so that it is done once.

    Attributes:
        turned: In the basis, (n,).
        plain: As the parameters are, one after the other, (n,).
    """

    turned: Tensor
    plain: Tensor


def combined(parts: Sequence[float] | Numbers, directions: Sequence[Direction]) -> Direction:
    """Return the sum of the directions times their parts, (m,)."""
    first, *others = zip(parts, directions, strict=True)
    turned, plain = (vector * float(first[0]) for vector in first[1])
    for part, direction in others:
        turned.add_(direction.turned, alpha=float(part))
        plain.add_(direction.plain, alpha=float(part))
    return Direction(turned, plain)


class QuadraticModel:
    """m(d) = ½dᵀ(G + S)d − bᵀd for d in the span of the directions added so far.

    Directions stay on the device; what their inner products say is read from there once for
    each time that the subspace is widened.

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
        parameters = self._ggn.parameters
        tangents = self._ggn.jvps([unflatten(q.plain, parameters) for q in directions])
        self.directions += directions
        self._tangents += tangents
        self._pulled += [self._ggn.output_hessian(u) for u in tangents]
        stacked = torch.stack([q.turned for q in self.directions])
        own = curvatures(self._tangents, self._pulled).to(stacked)
        damping = (stacked * self._s) @ stacked.T
        pull = (stacked @ self._b).unsqueeze(1)
        found = np.array(torch.cat([own, damping, pull], 1).tolist())
        m = len(found)
        self.own, self.pull = found[:, :m], found[:, -1]
        self.matrix = self.own + found[:, m:-1]
        self.parts = minimum(self.matrix, self.pull)

    def curvatures(self, diagonal: Tensor) -> tuple[float, float, float]:
        """Return dᵀGd, dᵀ(G + S)d and dᵀDd at the minimum d, for a diagonal D (n,); all above 0.

        Waits for the device.
        """
        d = combined(self.parts, self.directions).turned
        own, damped = (inner(self.parts, m, self.parts) for m in (self.own, self.matrix))
        told = float(torch.dot(d * diagonal, d))
        return max(own, _TINY), max(damped, _TINY), max(told, _TINY)

    @property
    def lowers(self) -> float:
        """−m at the minimum."""
        linear: float = sum(
            a * b for a, b in zip(self.parts.tolist(), self.pull.tolist(), strict=True)
        )
        return linear - 0.5 * inner(self.parts, self.matrix, self.parts)

    def residual(self) -> Tensor:
        """Return b − (G + S)d at the minimum, (n,), by a backward pass."""
        outputs = zip(*self._pulled, strict=True)
        pulled = [torch.stack(list(w)) for w in outputs]
        parts = torch.from_numpy(self.parts)
        h = [torch.tensordot(parts.to(w), w, 1) for w in pulled]
        d = combined(self.parts, self.directions).turned
        return self._b - self._basis.rotate(self._ggn.vjp(h)) - self._s * d
