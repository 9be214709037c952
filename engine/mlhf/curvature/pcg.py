"""Preconditioned conjugate gradients with a fixed number of iterations.

Differs from the textbook (and SciPy) in one way: the loop never asks whether to stop, since
that would read a value back from the device in every iteration. A converged solve goes on
with steps of length zero instead.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class PCGResult:
    """A solve's outcome; everything stays on the device.

    Attributes:
        x: The solution.
        residual: r = b − Ax, or None where the last one was not asked for.
        residual_norm: ‖r‖ of the last residual that was computed, a scalar.
        initial_residual_norm: ‖b − Ax₀‖, a scalar.
        iterations: How many iterations moved x, a scalar integer.
        converged: Whether ‖r‖ < tolerance, a scalar boolean, of the same r.
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
        """⟨x, Ax⟩ = ⟨x, b − r⟩, a scalar; None where r is. Ask while b and r are unchanged."""
        return None if self.residual is None else torch.dot(self.x, self.right_side - self.residual)


class Vectors(Protocol):
    """The vector work of an iteration, for an elementwise inverse P; y = P∘r throughout."""

    def begin(self, p: Tensor, r: Tensor, inverse: Tensor) -> tuple[Tensor, Tensor]:
        """p ← y; return ‖r‖ and ⟨r, y⟩."""
        ...

    def move(
        self, x: Tensor, r: Tensor, p: Tensor, ap: Tensor, alpha: Tensor, inverse: Tensor
    ) -> tuple[Tensor, Tensor]:
        """x ← x + αp, r ← r − αAp; return the new ‖r‖ and ⟨r, y⟩."""
        ...

    def turn(self, p: Tensor, r: Tensor, beta: Tensor, inverse: Tensor) -> None:
        """p ← y + βp."""
        ...


class Workspace:
    """Vectors a solve works in. Kept between solves, they spare each one new memory."""

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
    vectors: Vectors | None = None,
) -> PCGResult:
    """Solve Ax = b for a symmetric positive definite A.

    Args:
        product: v ↦ Av.
        b: Right-hand side, one dimension.
        x0: Start, zero by default (which saves a product).
        inverse: The elementwise inverse preconditioner P > 0, or a function that is called
            once and makes it of r₀; identity by default.
        iterations: How many iterations are run.
        tolerance: x no longer moves once ‖r‖ is below it.
        quadratic: v ↦ ⟨v, Av⟩. Where given, the last iteration uses it in place of a whole
            product: x is the same, the residual after it stays unknown.
        workspace: Where to work; the result's residual then lives there, until its next use.
        overwrite: Whether the solution may take x0's place in memory.
        vectors: A faster form of the vector work; used where there is a preconditioner.
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
    fused = None if inverse is None else vectors
    y = r if inverse is None else space.y
    if fused is not None and inverse is not None:
        norm, ry = fused.begin(p, r, inverse)
    else:
        if inverse is not None:
            torch.mul(inverse, r, out=y)
        p.copy_(y)
        ry = torch.dot(r, y)
        norm = torch.linalg.vector_norm(r)
    initial = norm
    count = torch.zeros((), dtype=torch.int64, device=b.device)
    tiny = torch.finfo(b.dtype).tiny
    known = True

    for i in range(iterations):
        active = ~(norm < tolerance)  # a NaN goes on, and shows
        count += active
        last = i == iterations - 1
        if last and quadratic is not None:
            alpha = torch.where(active, ry / quadratic(p).clamp_min(tiny), 0.0)
            x.addcmul_(p, alpha)
            known = False
            break
        ap = product(p)
        alpha = torch.where(active, ry / torch.dot(p, ap).clamp_min(tiny), 0.0)
        previous = ry
        if fused is not None and inverse is not None:
            norm, ry = fused.move(x, r, p, ap, alpha, inverse)
        else:
            x.addcmul_(p, alpha)
            r.addcmul_(ap, alpha, value=-1)
            norm = torch.linalg.vector_norm(r)
            if not last:
                if inverse is not None:
                    torch.mul(inverse, r, out=y)
                ry = torch.dot(r, y)
        if last:
            break
        beta = ry / previous.clamp_min(tiny)
        if fused is not None and inverse is not None:
            fused.turn(p, r, beta, inverse)
        else:
            torch.addcmul(y, p, beta, out=p)

    return PCGResult(
        x=x,
        residual=r if known else None,
        residual_norm=norm,
        initial_residual_norm=initial,
        iterations=count,
        converged=norm < tolerance,
        right_side=b,
    )
