"""The damped Gauss-Newton system by products alone, where no matrix fits in memory.

Conjugate gradients preconditioned by a Nyström sketch (Frangella, Tropp & Udell 2023,
"Randomized Nyström preconditioning"): from ℓ products Y = GΩ the ℓ largest eigenvalues are
about known, and what is left for the iterations is the rest of the spectrum.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mlhf.curvature.protocol import Curvature
from mlhf.curvature.vectors import flatten, unflatten

RANK = 10
ITERATIONS = 30
_TOLERANCE = 1e-3  # of the residual, relative to the gradient


class IterativeSystem:
    """The system (G + μI)d = ∇ℓ + wθ.

    Args:
        curvature: G, with the gradient.
        parameters: θ.
        penalty: w.
        generator: Of the sketch, on the CPU.
    """

    def __init__(
        self,
        curvature: Curvature,
        parameters: Sequence[Tensor],
        penalty: float,
        generator: torch.Generator,
    ) -> None:
        self._curvature, self._parameters, self._penalty = curvature, parameters, penalty
        self.gradient = flatten(curvature.gradient)
        if penalty:
            self.gradient = self.gradient.add(flatten(parameters), alpha=penalty)
        self._values, self._vectors, self.trace = nystrom(
            self._product, self.gradient, RANK, generator
        )

    def _product(self, v: Tensor) -> Tensor:
        return flatten(self._curvature.product(unflatten(v, self._parameters)))

    def solve(self, damping: float, extra: Tensor | None = None) -> Tensor | None:
        """Return d (p,); None where it is not finite."""
        shift = damping + self._penalty
        u, values = self._vectors, self._values
        # (λ_ℓ + μ)U(Λ + μ)⁻¹Uᵀ + I − UUᵀ
        factors = (values.min() + shift) / (values + shift) - 1
        d = conjugate_gradients(
            lambda v: self._product(v).add_(v, alpha=shift),
            self.gradient if extra is None else self.gradient + extra,
            lambda v: v + u @ (factors * (u.T @ v)),
        )
        return d if bool(torch.isfinite(d).all()) else None


def nystrom(
    product: Callable[[Tensor], Tensor], like: Tensor, rank: int, generator: torch.Generator
) -> tuple[Tensor, Tensor, float]:
    """Return about the largest eigenvalues (ℓ,) of G ⪰ 0, their vectors (p, ℓ), and its trace.

    Args:
        product: v ↦ Gv.
        like: A vector (p,).
        rank: ℓ, at most p.
        generator: On the CPU.
    """
    p = len(like)
    rank = min(rank, p)
    normal = torch.randn(p, rank, generator=generator).to(like)
    omega, _ = torch.linalg.qr(normal)
    y = torch.stack([product(column.contiguous()) for column in omega.T], 1)
    trace = float((omega * y).sum()) * p / rank
    eps = torch.finfo(like.dtype).eps
    shift = (p**0.5) * eps * float(torch.linalg.matrix_norm(y)) + torch.finfo(like.dtype).tiny
    y = y.add_(omega, alpha=shift)
    core = omega.T @ y
    factor, failed = torch.linalg.cholesky_ex(0.5 * (core + core.T))
    if int(failed) or not bool(torch.isfinite(factor).all()):
        return like.new_zeros(rank), omega, max(trace, 0.0)  # G is next to 0: no preconditioner
    b = torch.linalg.solve_triangular(factor, y.T, upper=False).T
    vectors, singular, _ = torch.linalg.svd(b, full_matrices=False)
    return (singular.square() - shift).clamp_min(0), vectors, max(trace, 0.0)


def conjugate_gradients(
    product: Callable[[Tensor], Tensor], b: Tensor, precondition: Callable[[Tensor], Tensor]
) -> Tensor:
    """Return about A⁻¹b from 0; ends early where the residual is small, or A not positive."""
    x, r = torch.zeros_like(b), b.clone()
    y = precondition(r)
    p, ry = y.clone(), torch.dot(r, y)
    limit = _TOLERANCE * torch.linalg.vector_norm(b)
    for _ in range(ITERATIONS):
        ap = product(p)
        curvature = torch.dot(p, ap)
        if not bool(curvature > 0):
            break
        alpha = ry / curvature
        x.add_(alpha * p)
        r.sub_(alpha * ap)
        if bool(torch.linalg.vector_norm(r) <= limit):
            break
        y = precondition(r)
        before, ry = ry, torch.dot(r, y)
        p = y + (ry / before) * p
    return x
