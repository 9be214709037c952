"""Parameters of the data set ``pde``."""

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from mlhf.core.config import Strict
from mlhf.core.expressions import Expression, ExpressionError, parse
from mlhf.data.params import Bound, FormulaText
from mlhf.data.pde.catalogue import CATALOGUE, Boundary, Equation
from mlhf.data.pde.groups import Face, on_grids
from mlhf.data.pde.names import Coordinates, Variables

EquationName = Literal[
    "poisson", "helmholtz", "heat", "advection", "burgers", "allen_cahn", "custom"
]
Sampler = Literal["uniform", "latin_hypercube", "sobol", "grid"]
Count = Annotated[int, Field(ge=0, le=65_536, strict=True)]
Weight = Annotated[float, Field(gt=0, le=1e9)]
Coefficient = Annotated[float, Field(ge=-1e6, le=1e6)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z]\w{0,30}$")]

MOST_DIMENSIONS = 100
MOST_POINTS = 65_536  # of a step
MOST_TEST_NUMBERS = 2**22
_INITIAL = 60
_FORMULA = "In x, y, z (or x1, x2, …) and t, and the coefficients"
# What a computed solution can still resolve, in seconds.
_LEAST = {"burgers": ("viscosity", 1e-4), "allen_cahn": ("diffusivity", 1e-4)}
_LATEST, _FASTEST = 10.0, 20.0  # time, and time · rate of a reaction


class Points(Strict):
    """How many points each group has."""

    interior: Annotated[Count, Field(ge=1)] = Field(
        default=900, description="Points inside, where the equation is demanded."
    )
    boundary: Count = Field(
        default=120, description="Points on the boundary (pairs of them where it is periodic)."
    )
    initial: Count | None = Field(
        default=None, description="Points at time 0: 60 where there is time."
    )


class Weights(Strict):
    """What each group's mean square is multiplied by in the loss."""

    interior: Weight = Field(default=1.0, description="Of the equation.")
    boundary: Weight | None = Field(
        default=None, description="Of the boundary: 100 without time, else 10."
    )
    initial: Weight | None = Field(default=None, description="Of the initial values: 10.")


class PdeParams(Strict):
    """A differential equation on a box, and the points that its residuals are measured at."""

    equation: EquationName = Field(
        default="poisson",
        description="; ".join(each.title for each in CATALOGUE.values())
        + "; custom: the formula `residual`.",
    )
    dimension: Annotated[int, Field(ge=1, le=MOST_DIMENSIONS, strict=True)] | None = Field(
        default=None, description="Of space: 2 for poisson, helmholtz and custom, 1 for others."
    )
    time: Annotated[float, Field(gt=0, le=1e6)] | None = Field(
        default=None,
        description="The last time, from 0: 1 where the equation has time. With custom it says "
        "that there is time.",
    )
    domain: tuple[Bound, Bound] | list[tuple[Bound, Bound]] | None = Field(
        default=None,
        description="The interval of each coordinate of space, one for all or a list: [0, 1]; "
        "[-1, 1] for burgers and allen_cahn.",
    )
    coefficients: dict[Name, Coefficient] = Field(
        default_factory=dict,
        max_length=32,
        description="Numbers that the equation has: wavenumber 4 (helmholtz), diffusivity 0.1 "
        "(heat) or 0.001 (allen_cahn), speed 1, viscosity 0.0318, reaction 5. With custom, any "
        "that its formulas name.",
    )
    residual: FormulaText | None = Field(
        default=None,
        description=f"Of custom: what is 0 where u solves it. {_FORMULA}, u, and its derivatives "
        "up to fourth order: u_x, u_xy, u_xxt, u_x1x2, …, lap_u.",
    )
    solution: FormulaText | None = Field(
        default=None,
        description=f"The exact solution. {_FORMULA}. Boundary and initial values are its own. An "
        "equation of the catalogue gets the source that belongs to it; to custom it must fit. "
        "Absent: the catalogue's, unless source, boundary or initial are given.",
    )
    source: FormulaText | None = Field(
        default=None,
        description=f"f, where no solution is known. {_FORMULA}.",
    )
    boundary: FormulaText | None = Field(
        default=None,
        description=f"Values on the boundary: a formula, or `periodic`. {_FORMULA}. 0 where no "
        "solution is known.",
    )
    initial: FormulaText | None = Field(
        default=None, description=f"Values at time 0, where no solution is known. {_FORMULA}."
    )
    points: Points = Field(
        default_factory=Points,
        description="How many points a step takes: all of them, so batch_size is left out.",
    )
    weights: Weights = Field(
        default_factory=Weights, description="Of the groups' mean squares in the loss."
    )
    sampler: Sampler = Field(
        default="uniform",
        description="How points are drawn: independently, by a Latin hypercube, by a scrambled "
        "Sobol sequence, or not at all: on a grid (of at most so many points).",
    )
    resample_every: Annotated[int, Field(ge=0, le=2**31, strict=True)] = Field(
        default=1, description="Steps after which points are drawn anew; 0: never."
    )
    test_points: Annotated[int, Field(ge=2, le=262_144, strict=True)] = Field(
        default=4096,
        description="Points where the relative error is measured: a grid of about so many in up "
        "to three coordinates, else random ones, always the same.",
    )

    @field_validator("domain")
    @classmethod
    def _in_order(
        cls, value: tuple[float, float] | list[tuple[float, float]] | None
    ) -> tuple[float, float] | list[tuple[float, float]] | None:
        for low, high in value if isinstance(value, list) else [value] if value else []:
            if not low < high:
                raise ValueError(f"{low:g} is not below {high:g}")
        return value

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if problem := self._problem():
            raise ValueError(problem)
        for name in ("residual", "solution", "source", "boundary", "initial"):
            try:
                self.formula(name)
            except ExpressionError as error:
                raise ValueError(f"{name} {getattr(self, name)!r} {error}") from None
        residual = self.formula("residual")
        known = self.coefficient_values
        if residual is not None and all(
            name in known or self.coordinates.index(name) is not None for name in residual.variables
        ):
            raise ValueError(f"residual {residual.text!r} names neither u nor a derivative of it")
        return self

    def _problem(self) -> str | None:
        """Return what does not fit together, in words."""
        custom, known = self.equation == "custom", self.known
        if custom != (self.residual is not None):
            return (
                "custom needs the formula `residual`"
                if custom
                else (f"residual is for custom; {self.equation} has its own")
            )
        if self.time is not None and known is not None and not known.time:
            return f"{self.equation} has no time: leave `time` out"
        if not custom and (wrong := set(self.coefficients) - set(self.known_coefficients)):
            has = ", ".join(self.known_coefficients) or "none"
            return f"{self.equation} has no coefficient {min(wrong)!r}; it has {has}"
        if taken := [n for n in self.coefficients if self.coordinates.index(n) is not None]:
            return f"a coefficient cannot be called {taken[0]!r}, as a coordinate is"
        if "u" in self.coefficients or any(n.startswith(("u_", "lap_")) for n in self.coefficients):
            return "a coefficient cannot be called as u or a derivative is"
        if isinstance(self.domain, list) and len(self.domain) != self.space:
            return f"domain has {len(self.domain)} intervals for {self.space} coordinates of space"
        if not self.coordinates.time and (self.initial or self.points.initial):
            return "initial values need time"
        return self._wrong_conditions() or self._wrong_points()

    def _wrong_conditions(self) -> str | None:
        given = [n for n in ("source", "boundary", "initial") if getattr(self, n) is not None]
        if self.solution is not None and set(given) - {"boundary"}:
            return f"give solution or {given[0]}, not both: a solution has its own"
        if self.solution is not None and given and self.boundary != "periodic":
            return "give solution or boundary, not both: a solution has its own (or `periodic`)"
        if self.equation == "custom" and self.source is not None:
            return "write the source of custom into its residual"
        if not self.has_solution and self.coordinates.time and self.initial is None:
            return "give initial, the values at time 0 (or solution)"
        if self.reference is not None:
            return self._wrong_reference(self.reference)
        return None

    def _wrong_reference(self, reference: str) -> str | None:
        """Return why a solution cannot be computed."""
        name, least = _LEAST[reference]
        values, last = self.coefficient_values, self.box[-1][1]
        instead = "or give solution, or initial and boundary"
        if values[name] < least:
            return (
                f"{name} is below {least:g}, the least that a solution is computed for, {instead}"
            )
        if last > _LATEST:
            return f"time is above {_LATEST:g}, up to which a solution is computed, {instead}"
        if reference == "burgers":
            return None
        if not 0 < last * values["reaction"] <= _FASTEST:
            return (
                f"a solution is computed for a reaction above 0, up to {_FASTEST / last:g} (which "
                f"is {_FASTEST:g} over the last time), {instead}"
            )
        if self.intervals != [(-1.0, 1.0)]:
            return f"the solution is computed on [-1, 1]: leave domain out, {instead}"
        return None

    def _wrong_points(self) -> str | None:
        total = sum(self.counts.values())
        if total > MOST_POINTS:
            return f"points has {total:,} points; a step takes at most {MOST_POINTS:,}"
        if self.sampler == "grid" and self.points.interior < 2 ** len(self.coordinates):
            return (
                f"a grid in {len(self.coordinates)} coordinates has at least "
                f"{2 ** len(self.coordinates):,} points: take another sampler"
            )
        if self.test_points * len(self.coordinates) > MOST_TEST_NUMBERS:
            most = MOST_TEST_NUMBERS // len(self.coordinates)
            return f"test_points is above {most:,}, the most in {len(self.coordinates)} coordinates"
        return None

    @property
    def known(self) -> Equation | None:
        """Return the catalogue's entry; None of custom."""
        return CATALOGUE.get(self.equation)

    @property
    def known_coefficients(self) -> dict[str, float]:
        """Return the coefficients that the catalogue's entry has, as it has them."""
        return dict(self.known.coefficients) if self.known else {}

    @property
    def space(self) -> int:
        """Return the dimension of space."""
        if self.dimension is not None:
            return self.dimension
        return self.known.dimension if self.known else 2

    @property
    def coordinates(self) -> Coordinates:
        """Return the coordinates of a point."""
        time = self.known.time if self.known else self.time is not None
        return Coordinates(self.space, time)

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """Return the interval of each coordinate of space."""
        if isinstance(self.domain, list):
            return self.domain
        usual = self.known.domain if self.known else (0.0, 1.0)
        return [self.domain or usual] * self.space

    @property
    def box(self) -> list[tuple[float, float]]:
        """Return the interval of every coordinate."""
        return self.intervals + ([(0.0, self.time or 1.0)] if self.coordinates.time else [])

    @property
    def coefficient_values(self) -> dict[str, float]:
        """Return the coefficients, as they are."""
        return self.known_coefficients | self.coefficients

    @property
    def has_solution(self) -> bool:
        """Whether a solution is known."""
        if self.solution is not None:
            return True
        return self.known is not None and not (self.source or self.boundary or self.initial)

    @property
    def reference(self) -> Literal["burgers", "allen_cahn"] | None:
        """Return which computed solution is taken, if one is."""
        if self.solution is not None or not self.has_solution or self.space != 1:
            return None
        return self.known.reference if self.known else None

    @property
    def kind_of_boundary(self) -> Boundary:
        """Return what is demanded on the boundary."""
        if self.boundary == "periodic":
            return "periodic"
        if self.known is None or (self.known.boundary == "periodic" and self.reference is None):
            return "values"
        return self.known.boundary

    @property
    def has_second(self) -> bool:
        """Whether the equation has second derivatives, or higher ones."""
        if self.known is not None:
            return self.known.second
        formula = self.formula("residual")
        assert formula is not None
        orders = map(self.coordinates.derivative, formula.variables)
        return "lap_u" in formula.variables or any(len(order or ()) > 1 for order in orders)

    @property
    def faces(self) -> list[Face]:
        """Return the faces with boundary points: of a periodic pair the lower, for both."""
        axes = range(self.space)
        match self.kind_of_boundary:
            case "periodic":
                return [Face(axis, False) for axis in axes]
            case "inflow":
                upper = self.coefficient_values["speed"] < 0
                return [Face(axis, upper) for axis in axes]
            case _:
                return [Face(axis, upper) for axis in axes for upper in (False, True)]

    @property
    def counts(self) -> dict[str, int]:
        """Return how many points each group has in a step; those without any are left out."""
        found = {"interior": self.points.interior, "boundary": self.points.boundary}
        if self.coordinates.time:
            initial = self.points.initial
            found["initial"] = _INITIAL if initial is None else initial
        if len(self.coordinates) == 1 and found["boundary"]:
            found["boundary"] = len(self.faces)  # each end once
        if self.sampler == "grid":
            found = on_grids(found, len(self.coordinates), len(self.faces))
        return {name: n for name, n in found.items() if n}

    def formula(self, name: str) -> Expression | None:
        """Return a formula that was read: one of the user's, or the catalogue's in its place.

        Raises:
            ExpressionError: where it is not of the language.
        """
        text = getattr(self, name)
        known = self.known if self.has_solution else None
        if name == "residual" and self.known is not None:
            text = self.known.residual(self.space)
        elif name == "boundary" and text == "periodic":
            return None
        elif name == "solution" and text is None and known and self.reference is None:
            text = known.solution(self.space)
        elif name == "source" and text is None and known and known.source and not self.solution:
            text = known.source(self.space)
        elif name == "initial" and text is None and known and self.reference is not None:
            text = known.initial
        if text is None:
            return None
        allowed = Variables(self.coordinates, self.coefficient_values, name == "residual")
        return parse(text, allowed)

    def weight(self, group: str) -> float:
        """Return a group's weight."""
        given: float | None = getattr(self.weights, group)
        usual = 10.0 if self.coordinates.time else 100.0
        return usual if given is None else given
