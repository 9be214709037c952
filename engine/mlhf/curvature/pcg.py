"""Preconditioned conjugate gradients with a fixed number of iterations.

Differs from the textbook (Shewchuk 1994, B3; SciPy's ``cg``) in two ways. The loop never asks
whether it has converged, since that would wait for a value from the device in every iteration:
a converged solve takes steps of length zero instead. And A need not be positive definite: a
solve ends at the first direction whose curvature is not positive (Steihaug 1983).
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


class PCGStatus(IntEnum):
    """How a solve ended."""

    ITERATIONS = 0  # all were run
    CONVERGED = 1
    NEGATIVE_CURVATURE = 2  # a direction p with pᵀAp ≤ 0


@dataclass(frozen=True)
class PCGResult:
    """The outcome of a solve of Ax = b; everything stays on the device.

    Attributes:
        x: The solution (n,).
        residual: r = b − Ax, shape (n,); None where the last one was not computed.
        residual_norm: ‖r‖ of the last residual that was computed, a scalar.
        initial_residual_norm: ‖b − Ax₀‖, a scalar.
        iterations: How many iterations moved x, a scalar integer.
        converged: Whether ``residual_norm`` is below the tolerance, a scalar boolean.
        negative_curvature: Whether the solve ended at pᵀAp ≤ 0, a scalar boolean. Where x is
            then a steepest-descent step, the residual stays that of the last iterate.
        right_side: b, as it was given.
    """

    x: Tensor
    residual: Tensor | None
    residual_norm: Tensor
    initial_residual_norm: Tensor
    iterations: Tensor
    converged: Tensor
    negative_curvature: Tensor
    right_side: Tensor

    @property
    def status(self) -> Tensor:
        """A ``PCGStatus``, a scalar integer."""
        return torch.where(
            self.negative_curvature,
            int(PCGStatus.NEGATIVE_CURVATURE),
            torch.where(self.converged, int(PCGStatus.CONVERGED), int(PCGStatus.ITERATIONS)),
        )

    @property
    def curvature(self) -> Tensor | None:
        """⟨x, Ax⟩ = ⟨x, b − r⟩, a scalar; None where r is. Needs b and r unchanged."""
        return None if self.residual is None else torch.dot(self.x, self.right_side - self.residual)


class Vectors(Protocol):
    """The vector operations of one solve, in place, for the preconditioned residual y = P∘r."""

    def begin(self, p: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        """p ← y; return ‖r‖ and ⟨r, y⟩."""
        ...

    def move(self, x: Tensor, r: Tensor, p: Tensor, ap: Tensor, alpha: Tensor) -> Tensor:
        """x ← x + αp, r ← r − αAp; return the new ‖r‖."""
        ...

    def update_direction(self, p: Tensor, r: Tensor, ry: Tensor) -> Tensor:
        """p ← y + βp with β = ⟨r, y⟩/ry; return ⟨r, y⟩.

        Args:
            ry: ⟨r, y⟩ of the iteration before.
        """
        ...


class MakesVectors(Protocol):
    """Makes a solve's vector operations: a class such as ``TorchVectors``."""

    def __call__(self, inverse: Tensor, y: Tensor, /) -> Vectors: ...


class TorchVectors:
    """The vector operations in torch, for any device and dtype.

    Args:
        inverse: P, shape (n,); None is the identity.
        y: Memory for y, shape (n,); unused without P, where y is r.
    """

    def __init__(self, inverse: Tensor | None, y: Tensor) -> None:
        self._inverse, self._y = inverse, y

    def begin(self, p: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        y = self._precondition(r)
        p.copy_(y)
        ry = torch.dot(r, y)
        return torch.linalg.vector_norm(r), ry

    def move(self, x: Tensor, r: Tensor, p: Tensor, ap: Tensor, alpha: Tensor) -> Tensor:
        x.addcmul_(p, alpha)
        r.addcmul_(ap, alpha, value=-1)
        norm: Tensor = torch.linalg.vector_norm(r)
        return norm

    def update_direction(self, p: Tensor, r: Tensor, ry: Tensor) -> Tensor:
        y = self._precondition(r)
        new_ry = torch.dot(r, y)
        torch.addcmul(y, p, ratio(new_ry, ry), out=p)
        return new_ry

    def _precondition(self, r: Tensor) -> Tensor:
        return r if self._inverse is None else torch.mul(self._inverse, r, out=self._y)


class Workspace:
    """The vectors a solve works in. Kept between solves, they save each one new memory.

    Args:
        like: A vector (n,) of their size, dtype and device.
    """

    def __init__(self, like: Tensor) -> None:
        self.r = torch.empty_like(like)
        self.y = torch.empty_like(like)
        self.p = torch.empty_like(like)


def pcg(
    product: Product,
    b: Tensor,
    x0: Tensor | None = None,
    inverse: Tensor | Product | None = None,
    *,
    iterations: int = 4,
    rtol: float = 0.0,
    atol: float = 1e-6,
    recompute_every: int | None = None,
    least_curvature: Product | None = None,
    quadratic: Product | None = None,
    workspace: Workspace | None = None,
    overwrite: bool = False,
    vectors: MakesVectors = TorchVectors,
) -> PCGResult:
    """Solve Ax = b for a symmetric A of n unknowns, if it is positive definite.

    If it is not, and a direction p with pᵀAp ≤ 0 comes up, x stays the iterate before it. If
    that was the first direction, or x would not be a descent direction (bᵀx ≤ 0, as from a
    warm start), x is the preconditioned steepest-descent step αPb instead, with
    α = rᵀPr / (rᵀPr + |pᵀAp|) at that p: the minimum along it where the curvature's magnitude
    is added to that of P⁻¹. So x is finite wherever b, P and the products are.

    Args:
        product: v ↦ Av, for vectors (n,).
        b: The right-hand side (n,).
        x0: Where to start (n,); zero by default, which saves a product.
        inverse: The elementwise inverse preconditioner P > 0 (n,), or a function that is
            called once and makes it of r₀; the identity by default.
        iterations: How many iterations are run.
        rtol: x no longer moves once ‖r‖ is below rtol·‖b‖,
        atol: or below this.
        recompute_every: After so many iterations each, r is computed as b − Ax, for a product
            more: updated again and again, it drifts away from that by rounding.
        least_curvature: p ↦ the value at or below which pᵀAp counts as negative; zero by
            default. A direction of next to no curvature makes a step of any length. Where this
            is given, products may have NaN and infinities, as second derivatives have at a kink:
            these count as negative curvature of the size of P⁻¹, and x₀ is left for zero if its
            product has any.
        quadratic: v ↦ ⟨v, Av⟩. The last iteration then uses it in place of a whole product:
            x is the same, the residual after it stays unknown.
        workspace: Where to work; the result's residual then lives there, until its next use.
        overwrite: Whether the solution may take x0's place in memory.
        vectors: Who does the vector operations where there is a preconditioner.

    Raises:
        ValueError: where ``recompute_every`` is below 1.
    """
    if recompute_every is not None and recompute_every < 1:
        raise ValueError("recompute_every must be at least 1")
    space = Workspace(b) if workspace is None else workspace
    r, p = space.r, space.p
    if x0 is None:
        x = torch.zeros_like(b)
        r.copy_(b)
    else:
        torch.sub(b, product(x0), out=r)
        x = x0 if overwrite else x0.clone()
        if least_curvature is not None:
            usable = torch.isfinite(torch.linalg.vector_norm(r))
            torch.where(usable, r, b, out=r)
            torch.where(usable, x, torch.zeros_like(usable, dtype=x.dtype), out=x)
    if callable(inverse) and not isinstance(inverse, Tensor):
        inverse = inverse(r)
    on = TorchVectors(None, space.y) if inverse is None else vectors(inverse, space.y)
    tolerance: Tensor | float = atol
    if rtol:
        tolerance = (rtol * torch.linalg.vector_norm(b)).clamp_min(atol)

    norm, ry = on.begin(p, r)
    initial = norm
    residual: Tensor | None = r
    count = torch.zeros((), dtype=torch.int64, device=b.device)
    ended = torch.zeros((), dtype=torch.bool, device=b.device)  # at negative curvature
    at_once = ended
    length = torch.zeros((), dtype=b.dtype, device=b.device)  # of a steepest-descent step
    for i in range(iterations):
        last = i == iterations - 1
        ap = None if last and quadratic is not None else product(p)
        if ap is not None:
            curvature = torch.dot(p, ap)
        elif quadratic is not None:
            curvature = quadratic(p)
        active = ~((norm < tolerance) | ended)  # a NaN goes on, and shows
        least = 0.0 if least_curvature is None else least_curvature(p).clamp_min(0)
        flat = active & (curvature <= least)
        size = curvature.abs()
        if least_curvature is not None:
            known = torch.isfinite(curvature)  # then so is Ap, since 0·∞ is NaN
            flat = flat | (active & ~known)
            size = torch.where(known, size, ry)
            if ap is not None:
                ap = torch.where(known, ap, torch.zeros_like(curvature))
        # Without a gradient there is no curvature along it either: that is no end.
        negative = flat & (ry > 0)
        moves = active & ~flat
        length = torch.where(negative, ry / (ry + size), length)
        ended = ended | negative
        if i == 0:
            at_once = ended
        count += moves
        alpha = torch.where(moves, ratio(ry, curvature), 0.0)
        if ap is None:
            x.addcmul_(p, alpha)
            residual = None
            break
        norm = on.move(x, r, p, ap, alpha)
        if last:
            break
        if recompute_every is not None and (i + 1) % recompute_every == 0:
            torch.sub(b, product(x), out=r)
            norm = on.move(x, r, p, p, torch.zeros_like(alpha))  # its norm alone
        ry = on.update_direction(p, r, ry)

    steepest = at_once | (ended & (torch.dot(b, x) <= 0))
    descent = b if inverse is None else torch.mul(inverse, b, out=space.y)
    torch.where(steepest, descent * length, x, out=x)
    return PCGResult(
        x=x,
        residual=residual,
        residual_norm=norm,
        initial_residual_norm=initial,
        iterations=count,
        converged=norm < tolerance,
        negative_curvature=ended,
        right_side=b,
    )


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a/b for scalars, b no less than the smallest normal number: 0/0 is 0."""
    return a / b.clamp_min(torch.finfo(b.dtype).tiny)
