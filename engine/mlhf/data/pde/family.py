"""The family ``pde``: its sizes, and the points where its error is measured."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mlhf.core.errors import SpecError
from mlhf.core.expressions import Expression
from mlhf.data.arrays import Array, Arrays
from mlhf.data.info import DataInfo
from mlhf.data.pde import references
from mlhf.data.pde.params import PdeParams

_GRID = 3  # coordinates up to which test points are a grid
_CHECKED = 4096  # points where formulas must be finite
_FORMULAS = ("solution", "source", "boundary", "initial")


def describe(params: PdeParams, root: Path | None) -> DataInfo:
    """Return the sizes: points of a step, and of the test.

    Raises:
        SpecError: where a formula has no finite value somewhere in the domain.
    """
    points = measured_points(params, _CHECKED)
    for name in _FORMULAS:
        if getattr(params, name) is not None and (formula := params.formula(name)) is not None:
            _check(params, name, formula, points)
    return DataInfo(
        kind="table",
        input_shape=(len(params.coordinates),),
        outputs=1,
        task="regression",
        train_samples=sum(params.counts.values()),
        test_samples=_test_count(params) if params.has_solution else 0,
    )


def validate(params: PdeParams, root: Path | None) -> DataInfo:
    """Check the same: there are no files."""
    return describe(params, root)


def read(params: PdeParams, root: Path | None) -> Arrays:
    """Refuse: there are no samples.

    Raises:
        SpecError: always.
    """
    raise SpecError(
        "/name",
        "pde has no samples, but points that are drawn while a network is trained on the residuals "
        "of an equation: jobs of the kinds train and sweep do that, others take function",
    )


def digest(root: Path | None) -> str:
    """Return the sha256 of nothing: the parameters are all there is."""
    return hashlib.sha256(b"pde").hexdigest()


def measured_points(params: PdeParams, most: int | None = None) -> Array:
    """Return the points of the test, (n, d) in float64, the same for every run.

    Args:
        most: Return about as many at most.
    """
    box = np.array(params.box)
    count = min(params.test_points, most or params.test_points)
    if len(box) > _GRID:
        unit = np.random.RandomState(0).random_sample((count, len(box)))
        return np.asarray(box[:, 0] + (box[:, 1] - box[:, 0]) * unit)
    along = _side(count, len(box))
    return grid([np.linspace(low, high, along) for low, high in params.box])


def _side(count: int, coordinates: int) -> int:
    along: int = round(count ** (1 / coordinates))
    return max(2, along)


def _test_count(params: PdeParams) -> int:
    d = len(params.coordinates)
    return params.test_points if d > _GRID else int(_side(params.test_points, d) ** d)


def grid(axes: list[Array]) -> Array:
    """Return the points of a grid, the last coordinate running fastest."""
    return np.stack([a.ravel() for a in np.meshgrid(*axes, indexing="ij")], 1)


def solution_values(params: PdeParams, points: Array) -> Array:
    """Return the solution at points (n, d), shape (n,); it must be known."""
    if params.reference == "burgers":
        return references.burgers(points, params.coefficient_values)
    if params.reference == "allen_cahn":
        return references.allen_cahn(points, params.coefficient_values)
    formula = params.formula("solution")
    assert formula is not None
    return evaluate(params, formula, points)


def evaluate(params: PdeParams, formula: Expression, points: Array) -> Array:
    """Return a formula's values at points, shape (n,)."""
    with np.errstate(all="ignore"):
        values = formula(values_of(params, formula, points.T), np)
    return np.broadcast_to(np.asarray(values, np.float64), (len(points),))


def values_of(params: PdeParams, formula: Expression, columns: Any) -> Mapping[str, Any]:
    """Return the values of coordinates and coefficients that a formula names.

    Args:
        columns: By coordinate.
    """
    found: dict[str, Any] = {"": columns[0]}  # what numbers alone take their form from
    for name in formula.variables:
        if name in params.coefficient_values:
            found[name] = params.coefficient_values[name]
        elif (place := params.coordinates.index(name)) is not None:
            found[name] = columns[place]
    return found


def _check(params: PdeParams, name: str, formula: Expression, points: Array) -> None:
    bad = ~np.isfinite(evaluate(params, formula, points))
    if bad.any():
        at = ", ".join(f"{v:.4g}" for v in points[bad.argmax()])
        raise SpecError(
            f"/params/{name}",
            f"{formula.text!r} has no finite value at ({at}): change the formula or the domain",
        )
