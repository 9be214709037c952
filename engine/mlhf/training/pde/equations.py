"""The residuals of an equation, as functions of a network and one point."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.core.expressions import Expression
from mlhf.curvature.derivatives import Jet, directional, jet
from mlhf.curvature.residuals import Residuals
from mlhf.data.pde.family import values_of
from mlhf.data.pde.params import PdeParams

# A function of a point (d,).
Function = Callable[[Tensor], Tensor]


class Operator:
    """The residual of an equation: a formula in u and its derivatives.

    Args:
        params: Names the equation.
    """

    def __init__(self, params: PdeParams) -> None:
        formula = params.formula("residual")
        assert formula is not None
        self._params, self._formula = params, formula
        self._derivatives = {
            name: places
            for name in formula.variables
            if name not in params.coefficient_values
            and (places := params.coordinates.derivative(name)) is not None
        }
        space = tuple(range(params.space))
        pure = {p[0] for p in self._derivatives.values() if len(p) == 2 and p[0] == p[1]}
        self._summed = "lap_u" in formula.variables and (not pure or params.space == 1)
        wanted = set(space) if "lap_u" in formula.variables else set()
        self._second = space if self._summed else tuple(sorted(wanted | pure))

    def __call__(self, u: Function, x: Tensor) -> Tensor:
        """Return the residual of u at a point x (d,), a scalar."""
        found = jet(u, x, self._second, summed=self._summed)
        values = {**values_of(self._params, self._formula, x), "u": found.value}
        if "lap_u" in self._formula.variables:
            space = [i for i, at in enumerate(self._second) if at < self._params.space]
            values["lap_u"] = found.second if self._summed else found.second[space].sum()
        for name, places in self._derivatives.items():
            values[name] = self._derivative(u, x, found, places)
        residual: Tensor = self._formula(values, torch) + torch.zeros_like(found.value)
        return residual

    def _derivative(self, u: Function, x: Tensor, found: Jet, places: tuple[int, ...]) -> Tensor:
        if len(places) == 1:
            return found.first[places[0]]
        if len(places) == 2 and places[0] == places[1]:
            if self._summed:  # one coordinate of space: the sum is its own
                return found.second
            return found.second[self._second.index(places[0])]
        derivative = u
        for place in places:
            derivative = _along(derivative, _unit(x, place))
        return derivative(x)


def _along(f: Function, v: Tensor) -> Function:
    return lambda x: directional(f, x, v)


def _unit(x: Tensor, place: int) -> Tensor:
    v = torch.zeros_like(x)
    v[place] = 1
    return v


def scaling(box: list[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Return the middle and the half width of each interval."""
    return [(low + high) / 2 for low, high in box], [(high - low) / 2 for low, high in box]


def scaled(network: nn.Module, params: PdeParams) -> nn.Sequential:
    """Return a network of a point's coordinates, which are mapped to [−1, 1] for ``network``.

    The map is a linear layer that is not trained, so that derivatives are in the coordinates.
    """
    middle, half = (torch.tensor(v, dtype=torch.float64) for v in scaling(params.box))
    first = next(network.parameters())
    layer = nn.Linear(len(middle), len(middle), dtype=first.dtype, device=first.device)
    layer.requires_grad_(False)
    layer.weight.copy_(torch.diag(1 / half))
    layer.bias.copy_(-middle / half)
    return nn.Sequential(layer, network)


def residuals(network: nn.Module, params: PdeParams) -> Residuals:
    """Return a network's residuals in each group that has points, under their weights.

    Batches are as ``Draws`` makes them.
    """
    operator = Operator(params)

    def interior(u: Function, x: Tensor, source: Tensor) -> Tensor:
        return operator(u, x) - source

    def value(u: Function, x: Tensor, known: Tensor) -> Tensor:
        return u(x) - known

    def periodic(u: Function, x: Tensor, across: Tensor) -> Tensor:
        # ``across`` points from the lower face to the upper, as long as the interval.
        jump = u(x + across) - u(x)
        if not params.has_second:
            return jump
        slope = directional(u, x + across, across) - directional(u, x, across)
        return torch.stack([jump, slope / across.norm()])

    functions: dict[str, Callable[..., Tensor]] = {"interior": interior}
    if "boundary" in params.counts:
        functions["boundary"] = periodic if params.kind_of_boundary == "periodic" else value
    if "initial" in params.counts:
        functions["initial"] = value
    weights = {name: params.weight(name) for name in functions}
    return Residuals(scaled(network, params), functions, weights)


def formula_of(params: PdeParams, formula: Expression) -> Function:
    """Return a formula in coordinates as a function of a point."""

    def function(x: Tensor) -> Tensor:
        values: Mapping[str, Any] = values_of(params, formula, x)
        found: Tensor = 0 * x[0] + formula(values, torch)
        return found

    return function
