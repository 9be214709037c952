"""Preconditioned conjugate gradients with a fixed number of iterations.

Differs from the textbook (Shewchuk 1994, B3; SciPy's ``cg``) in one way: the loop never asks
whether it has converged, since that would wait for a value from the device in every iteration.
A converged solve takes steps of length zero instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


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
        right_side: b, as it was given.
    """

    x: Tensor
    residual: Tensor | None
    residual_norm: Tensor
    initial_residual_norm: Tensor
    iterations: Tensor
    converged: Tensor
    right_side: Tensor

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
    tolerance: float = 1e-6,
    quadratic: Product | None = None,
    workspace: Workspace | None = None,
    overwrite: bool = False,
    vectors: MakesVectors = TorchVectors,
) -> PCGResult:
    """Solve Ax = b for a symmetric positive definite A of n unknowns.

    Args:
        product: v ↦ Av, for vectors (n,).
        b: The right-hand side (n,).
        x0: Where to start (n,); zero by default, which saves a product.
        inverse: The elementwise inverse preconditioner P > 0 (n,), or a function that is
            called once and makes it of r₀; the identity by default.
        iterations: How many iterations are run.
        tolerance: x no longer moves once ‖r‖ is below it.
        quadratic: v ↦ ⟨v, Av⟩. The last iteration then uses it in place of a whole product:
            x is the same, the residual after it stays unknown.
        workspace: Where to work; the result's residual then lives there, until its next use.
        overwrite: Whether the solution may take x0's place in memory.
        vectors: Who does the vector operations where there is a preconditioner.

    Returns:
        The solution. Where A is not positive definite it may be of any size; nothing is raised.
    """
    space = Workspace(b) if workspace is None else workspace
    r, p = space.r, space.p
    if x0 is None:
        x = torch.zeros_like(b)
        r.copy_(b)
    else:
        torch.sub(b, product(x0), out=r)
        x = x0 if overwrite else x0.clone()
    if callable(inverse) and not isinstance(inverse, Tensor):
        inverse = inverse(r)
    on = TorchVectors(None, space.y) if inverse is None else vectors(inverse, space.y)

    norm, ry = on.begin(p, r)
    initial = norm
    residual: Tensor | None = r
    count = torch.zeros((), dtype=torch.int64, device=b.device)
    for i in range(iterations):
        active = ~(norm < tolerance)  # a NaN goes on, and shows
        count += active
        last = i == iterations - 1
        if last and quadratic is not None:
            x.addcmul_(p, torch.where(active, ratio(ry, quadratic(p)), 0.0))
            residual = None
            break
        ap = product(p)
        norm = on.move(x, r, p, ap, torch.where(active, ratio(ry, torch.dot(p, ap)), 0.0))
        if not last:
            ry = on.update_direction(p, r, ry)

    return PCGResult(
        x=x,
        residual=residual,
        residual_norm=norm,
        initial_residual_norm=initial,
        iterations=count,
        converged=norm < tolerance,
        right_side=b,
    )


def ratio(a: Tensor, b: Tensor) -> Tensor:
    """Return a/b for scalars, b no less than the smallest normal number: 0/0 is 0."""
    return a / b.clamp_min(torch.finfo(b.dtype).tiny)
