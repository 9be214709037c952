"""Points of the groups of an equation: where they are drawn, and what is known there.

Each draw is made by its number and the seed alone. So a checkpoint need only hold the number.
"""

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from mlhf.core.errors import SpecError
from mlhf.core.expressions import Expression
from mlhf.core.seeds import derive
from mlhf.data.pde.family import solution_values
from mlhf.data.pde.groups import side
from mlhf.data.pde.params import PdeParams, Sampler
from mlhf.training.pde.equations import Operator, formula_of

# By group: the points, and what each group's function takes beside them.
Batch = dict[str, tuple[Tensor, ...]]

_SEED_BITS = 2**31


def unit_points(sampler: Sampler, count: int, dimension: int, seed: int) -> Tensor:
    """Return points of the unit cube, (count, dimension) in float64.

    Args:
        sampler: A grid is of the middles of equal cells; ``count`` must be of one.
        count: How many.
        dimension: 0 gives points without coordinates.
        seed: Of the draw.
    """
    if dimension == 0 or count == 0:
        return torch.zeros(count, dimension, dtype=torch.float64)
    if sampler == "grid":
        along = side(count, dimension)
        axis = (torch.arange(along, dtype=torch.float64) + 0.5) / along
        return torch.cartesian_prod(*[axis] * dimension).reshape(-1, dimension)
    if sampler == "sobol":
        engine = torch.quasirandom.SobolEngine(  # type: ignore[no-untyped-call]
            dimension, scramble=True, seed=seed % _SEED_BITS
        )
        return engine.draw(count, dtype=torch.float64)
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, dimension, generator=generator, dtype=torch.float64)
    if sampler == "latin_hypercube":
        rows = torch.rand(count, dimension, generator=generator, dtype=torch.float64).argsort(0)
        points = (rows + points) / count
    return points


class Draws:
    """Draws the points of a run's steps.

    Args:
        params: The equation.
        seed: Of the run.

    Raises:
        SpecError: by draws where a formula, or a derivative of the solution, is not finite.
    """

    def __init__(self, params: PdeParams, seed: int) -> None:
        self._params, self._seed = params, seed
        self._operator = Operator(params)
        self._formulas = {
            name: params.formula(name) for name in ("solution", "source", "boundary", "initial")
        }
        box = torch.tensor(params.box, dtype=torch.float64)
        self._low, self._size = box[:, 0], box[:, 1] - box[:, 0]

    def draw(self, number: int, sampler: Sampler | None = None) -> Batch:
        """Return the points of a draw, in float64 on the CPU.

        Args:
            number: Which one; different numbers are independent.
            sampler: In place of the equation's.
        """
        sampler = sampler or self._params.sampler
        return {
            group: self._group(group, count, sampler, derive(self._seed, "points", number, group))
            for group, count in self._params.counts.items()
        }

    def left_by_solution(self) -> float | None:
        """Return how much of a custom equation its solution leaves; None where that is not known.

        It is the root mean square of the residual of the solution, over that of another function,
        which solves no usual equation.
        """
        solution = self._formulas["solution"]
        if self._params.equation != "custom" or solution is None:
            return None
        x = self.draw(0)["interior"][0]
        u = formula_of(self._params, solution)
        size = 1 + float(torch.func.vmap(u)(x).square().mean().sqrt())

        frequencies = 3 + 1.7 * torch.arange(len(self._low), dtype=x.dtype)

        def other(point: Tensor) -> Tensor:
            unit = (point - self._low) / self._size
            return u(point) + size * (torch.sin(frequencies @ unit) + unit.pow(3).sum())

        left, of_other = (
            float(torch.func.vmap(partial(self._operator, v))(x).square().mean().sqrt())
            for v in (u, other)
        )
        return left / of_other if of_other else left

    def _group(self, group: str, count: int, sampler: Sampler, seed: int) -> tuple[Tensor, ...]:
        if group == "boundary":
            return self._boundary(count, sampler, seed)
        d, last = len(self._low), len(self._low) - 1
        if group == "interior":
            x = self._low + self._size * unit_points(sampler, count, d, seed)
            return x, self._source(x)
        unit = unit_points(sampler, count, last, seed)
        x = self._low + self._size * torch.cat([unit, unit.new_zeros(len(unit), 1)], 1)
        return x, self._known("initial", x)

    def _boundary(self, count: int, sampler: Sampler, seed: int) -> tuple[Tensor, ...]:
        faces, d = self._params.faces, len(self._low)
        # Independent points on each face; which faces have one more is drawn.
        generator = torch.Generator().manual_seed(derive(seed, "faces"))
        places = torch.randperm(len(faces), generator=generator).tolist()
        parts = []
        for number, face in enumerate(faces):
            own = count // len(faces) + (places[number] < count % len(faces))
            unit = unit_points(sampler, own, d - 1, derive(seed, "face", number))
            end = unit.new_full((len(unit), 1), float(face.upper))
            parts.append(torch.cat([unit[:, : face.axis], end, unit[:, face.axis :]], 1))
        x = self._low + self._size * torch.cat(parts)
        if self._params.kind_of_boundary != "periodic":
            return x, self._known("boundary", x)
        axes = [face.axis for face, part in zip(faces, parts, strict=True) for _ in part]
        across = torch.zeros_like(x)
        across[torch.arange(len(x)), axes] = self._size[axes]
        return x, across

    def _source(self, x: Tensor) -> Tensor:
        """Return what the residual is to be: the source, or what the solution leaves of it."""
        if (source := self._formulas["source"]) is not None:
            # Formulas have the source on the right of −Δu = f, u_t = … + f, Δu + k²u = f.
            return self._evaluated("source", source, x)
        solution = self._formulas["solution"]
        if solution is None or self._params.solution is None or self._params.equation == "custom":
            return torch.zeros(len(x), dtype=x.dtype)
        u = formula_of(self._params, solution)
        left = torch.func.vmap(partial(self._operator, u))(x)
        return _finite(left, x, "solution", solution, "a derivative that is not finite")

    def _known(self, group: str, x: Tensor) -> Tensor:
        """Return the values that u has at points of the boundary, or at time 0."""
        if (formula := self._formulas[group]) is not None:
            return self._evaluated(group, formula, x)
        if self._params.has_solution:
            return torch.tensor(np.asarray(solution_values(self._params, x.numpy())))
        return torch.zeros(len(x), dtype=x.dtype)

    def _evaluated(self, name: str, formula: Expression, x: Tensor) -> Tensor:
        function: Callable[[Tensor], Tensor] = formula_of(self._params, formula)
        values = torch.func.vmap(function)(x)
        return _finite(values, x, name, formula, "no finite value")


def _finite(values: Tensor, x: Tensor, name: str, formula: Expression, what: str) -> Tensor:
    bad = ~torch.isfinite(values)
    if bool(bad.any()):
        at = ", ".join(f"{v:.4g}" for v in x[int(bad.int().argmax())].tolist())
        raise SpecError(
            f"/params/{name}",
            f"{formula.text!r} has {what} at ({at}): change the formula or the domain",
        )
    return values
