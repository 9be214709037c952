"""A batch's quadratic model, on a subspace that grows direction by direction."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mlhf.curvature.protocol import FactoredCurvature
from mlhf.curvature.vectors import flatten, unflatten
from mlhf.optimizers.mlhf.kernels import steps
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.subspace import (
    Array,
    bilinear,
    gram_matrix,
    minimum,
    semidefinite,
)

_TINY = torch.finfo(torch.float32).tiny


class Direction(NamedTuple):
    """One vector in both coordinate systems: rotating it is expensive, so that is done once.

    Attributes:
        in_eigenbasis: Its coordinates in the basis, (n,).
        in_parameters: Its coordinates as the flattened parameters have them, (n,).
    """

    in_eigenbasis: Tensor
    in_parameters: Tensor


def direction(basis: Basis, in_eigenbasis: Tensor) -> Direction:
    """Return a direction by its coordinates in the basis, (n,)."""
    return Direction(in_eigenbasis, flatten(basis.direction(in_eigenbasis)))


def combine(coefficients: Sequence[float] | Array, directions: Sequence[Direction]) -> Direction:
    """Return the linear combination of the directions with coefficients (m,)."""
    in_eigenbasis, in_parameters = ([d[which] for d in directions] for which in (0, 1))
    if steps.fits(in_eigenbasis[0]):
        factors = [float(c) for c in coefficients]
        return Direction(*steps.combine(factors, in_eigenbasis, in_parameters))
    return Direction(combined(coefficients, in_eigenbasis), combined(coefficients, in_parameters))


def combined(coefficients: Sequence[float] | Array, vectors: Sequence[Tensor]) -> Tensor:
    """Return the linear combination of vectors (n,) with coefficients (m,)."""
    result = vectors[0] * float(coefficients[0])
    for coefficient, vector in zip(coefficients[1:], vectors[1:], strict=True):
        result.add_(vector, alpha=float(coefficient))
    return result


class QuadraticModel:
    """m(d) = ½dᵀ(G + S)d − bᵀd for d in the span of the directions added so far.

    The directions stay on the device. Their inner products are read from it once for each call
    of ``add``.

    Args:
        ggn: G.
        basis: The basis that b, s and the directions' ``in_eigenbasis`` are in.
        b: The gradient, (n,).
        s: The diagonal of S, (n,).
        diagonal: D, by which the curvature is predicted, (n,).
        decays: What S has beside, a diagonal in the flattened parameters, (n,).

    Attributes:
        directions: The directions q_i.
        gram: ⟨q_i, Gq_j⟩, (m, m), without damping.
        damped_gram: ⟨q_i, (G + S)q_j⟩, (m, m).
        linear_term: ⟨q_i, b⟩, (m,).
        coefficients: Those of the minimum, (m,).
    """

    def __init__(
        self,
        ggn: FactoredCurvature,
        basis: Basis,
        b: Tensor,
        s: Tensor,
        diagonal: Tensor,
        decays: Tensor | None = None,
    ) -> None:
        self._ggn, self._basis, self._b, self._s, self._decays = ggn, basis, b, s, decays
        self._diagonal = diagonal
        self._tangents: list[list[Tensor]] = []  # Jq of each direction, one tensor an output
        self._hvps: list[list[Tensor]] = []  # HJq
        self.directions: list[Direction] = []

    def add(self, *directions: Direction) -> None:
        """Extend the subspace, by one tangent pass for each direction, and find the minimum."""
        parameters = self._ggn.parameters
        tangents = self._ggn.jvps([unflatten(q.in_parameters, parameters) for q in directions])
        self.directions += directions
        self._tangents += tangents
        self._hvps += [self._ggn.output_hessian(u) for u in tangents]
        products = self._products([q.in_eigenbasis for q in self.directions])
        gram = gram_matrix(self._tangents, self._hvps).to(products)
        on_host = np.array(torch.cat([gram, products], 1).tolist())
        m = len(on_host)
        gram_on_host, damping_on_host, self._predicted, linear = np.split(
            on_host, [m, 2 * m, 3 * m], 1
        )
        self.gram, self.linear_term = semidefinite(gram_on_host), linear[:, 0]
        self.damped_gram = self.gram + damping_on_host
        self.coefficients = minimum(self.damped_gram, self.linear_term)

    def _products(self, vectors: list[Tensor]) -> Tensor:
        """Return ⟨q_i, Sq_j⟩, ⟨q_i, Dq_j⟩ and ⟨q_i, b⟩, side by side: (m, 2m + 1)."""
        if self._decays is None and steps.fits(self._b):
            return steps.products(vectors, self._s, self._diagonal, self._b)
        stacked = torch.stack(vectors)
        damping = torch.mm(stacked * self._s, stacked.mT)
        if self._decays is not None:
            flat = torch.stack([q.in_parameters for q in self.directions])
            damping += torch.mm(flat * self._decays, flat.mT)
        predicted = torch.mm(stacked * self._diagonal, stacked.mT)
        linear_term = torch.mv(stacked, self._b).unsqueeze(1)
        return torch.cat([damping, predicted, linear_term], 1)

    def curvatures(self) -> tuple[float, float, float]:
        """Return dᵀGd, dᵀ(G + S)d and the predicted curvature dᵀDd at the minimum d.

        All are positive.
        """
        c = self.coefficients
        undamped, damped, predicted = (
            max(bilinear(c, m, c), _TINY) for m in (self.gram, self.damped_gram, self._predicted)
        )
        return undamped, damped, predicted

    @property
    def predicted_reduction(self) -> float:
        """−m at the minimum: by how much the model says that the objective falls."""
        return self.reduction(self.coefficients)

    def reduction(self, c: Array) -> float:
        """Return −m at the combination of the directions with coefficients c (m,)."""
        linear: float = sum(
            a * b for a, b in zip(c.tolist(), self.linear_term.tolist(), strict=True)
        )
        return linear - 0.5 * bilinear(c, self.damped_gram, c)

    def residual(self) -> Tensor:
        """Return b − (G + S)d at the minimum d, (n,), by a backward pass."""
        by_output = [torch.stack(list(h)) for h in zip(*self._hvps, strict=True)]
        coefficients = torch.from_numpy(self.coefficients)
        h = [torch.tensordot(coefficients.to(t), t, 1) for t in by_output]
        d = combine(self.coefficients, self.directions)
        product = self._ggn.vjp(h)
        if self._decays is not None:
            decay = unflatten(self._decays * d.in_parameters, self._ggn.parameters)
            product = list(torch._foreach_add(product, decay))
        return self._b - self._basis.rotate(product) - self._s * d.in_eigenbasis
