"""The equations that a job may name, each written in the language of formulas.

A residual is zero where u solves the equation. With a solution s whose residual is not zero, the
equation is ``residual(u) = residual(s)``: the source that belongs to s.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

Boundary = Literal["values", "inflow", "periodic"]
# From the dimension to a formula.
Formula = Callable[[int], str]


@dataclass(frozen=True)
class Equation:
    """One entry.

    Attributes:
        title: What it is, in a few words and in formulas.
        time: Whether it has time.
        residual: From the dimension to a formula in u, its derivatives, and the coefficients.
        dimension: Of space, where none is given.
        domain: The interval of each coordinate of space.
        coefficients: Their values, where none are given.
        solution: Its standard solution in closed form; None in one dimension where
            ``reference`` is.
        source: What the solution leaves of the residual; None where that is zero.
        reference: In one dimension, the name of a computed solution.
        initial: What that starts from.
        boundary: What is demanded there. ``inflow`` is where the equation transports into the
            domain.
        second: Whether there are second derivatives.
        weight: Of boundary and initial residuals.
    """

    title: str
    time: bool
    residual: Formula
    dimension: int
    domain: tuple[float, float]
    coefficients: Mapping[str, float]
    solution: Formula
    source: Formula | None = None
    reference: Literal["burgers", "allen_cahn"] | None = None
    initial: str | None = None
    boundary: Boundary = "values"
    second: bool = True
    weight: float = 100.0


def _sum(form: str) -> Formula:
    return lambda d: "+".join(form.format(f"x{i + 1}") for i in range(d))


def _product(form: str) -> Formula:
    return lambda d: "*".join(form.format(f"x{i + 1}") for i in range(d))


def _waves(d: int) -> str:
    """∏ sin πxᵢ in up to three dimensions; in more, where it is almost 0 everywhere, Σ sin πxᵢ."""
    return (_product if d <= 3 else _sum)("sin(pi*{})")(d)


def _curved(d: int) -> int:
    """−Δ/π² of ``_waves``, over itself."""
    return d if d <= 3 else 1


def _front(d: int) -> str:
    """Σxᵢ/√d − ½ − vt, along which Allen and Cahn's front moves."""
    speed = "3*sqrt(reaction*diffusivity/2)"
    return f"(({_sum('{}')(d)})/{math.sqrt(d)!r}-0.25-{speed}*t)"


CATALOGUE: dict[str, Equation] = {
    "poisson": Equation(
        title="Poisson: −Δu = f",
        time=False,
        residual=lambda d: "-lap_u",
        dimension=2,
        domain=(0.0, 1.0),
        coefficients={},
        solution=_waves,
        source=lambda d: f"{_curved(d)}*pi^2*({_waves(d)})",
    ),
    "helmholtz": Equation(
        title="Helmholtz: Δu + k²u = f, k = wavenumber",
        time=False,
        residual=lambda d: "lap_u+wavenumber^2*u",
        dimension=2,
        domain=(0.0, 1.0),
        coefficients={"wavenumber": 4.0},
        solution=_waves,
        source=lambda d: f"(wavenumber^2-{_curved(d)}*pi^2)*({_waves(d)})",
    ),
    "heat": Equation(
        title="Heat: u_t = κ Δu + f, κ = diffusivity",
        time=True,
        residual=lambda d: "u_t-diffusivity*lap_u",
        dimension=1,
        domain=(0.0, 1.0),
        coefficients={"diffusivity": 0.1},
        solution=lambda d: f"exp(-{_curved(d)}*diffusivity*pi^2*t)*({_waves(d)})",
        weight=10.0,
    ),
    "advection": Equation(
        title="Advection: u_t + c Σ ∂u/∂xᵢ = f, c = speed",
        time=True,
        residual=lambda d: f"u_t+speed*({_sum('u_{}')(d)})",
        dimension=1,
        domain=(0.0, 1.0),
        coefficients={"speed": 1.0},
        solution=lambda d: f"sin(2*pi*({_sum('{}')(d)}-{d}*speed*t))",
        boundary="inflow",
        second=False,
        weight=10.0,
    ),
    "burgers": Equation(
        title="Burgers: u_t + u Σ ∂u/∂xᵢ = ν Δu + f, ν = viscosity; from −sin πx in one dimension",
        time=True,
        residual=lambda d: f"u_t+u*({_sum('u_{}')(d)})-viscosity*lap_u",
        dimension=1,
        domain=(-1.0, 1.0),
        coefficients={"viscosity": 0.1 / math.pi},
        solution=lambda d: f"0.5-0.5*tanh(({_sum('{}')(d)}-{d / 2!r}*t)/(4*viscosity))",
        reference="burgers",
        initial="-sin(pi*x)",
        weight=10.0,
    ),
    "allen_cahn": Equation(
        title="Allen–Cahn: u_t = κ Δu + a (u − u³) + f, κ = diffusivity, a = reaction; "
        "from x² cos πx, periodic, in one dimension",
        time=True,
        residual=lambda d: "u_t-diffusivity*lap_u-reaction*(u-u^3)",
        dimension=1,
        domain=(-1.0, 1.0),
        coefficients={"diffusivity": 1e-3, "reaction": 5.0},
        solution=lambda d: f"0.5-0.5*tanh(sqrt(reaction/(8*diffusivity))*{_front(d)})",
        reference="allen_cahn",
        initial="x^2*cos(pi*x)",
        boundary="periodic",
        weight=10.0,
    ),
}
