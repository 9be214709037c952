"""Residuals, sources and points of equations."""

import math

import pytest
import torch
from torch import nn
from torch.autograd.functional import hessian, jacobian

from mlhf.core.errors import SpecError
from mlhf.data.pde.catalogue import CATALOGUE
from mlhf.data.pde.params import PdeParams
from mlhf.training.pde.equations import Operator, formula_of, residuals
from mlhf.training.pde.points import Draws, unit_points

CLOSED = [
    (name, d)
    for name, entry in CATALOGUE.items()
    for d in (1, 2, 4)
    if d > 1 or entry.reference is None
]


@pytest.mark.parametrize(("name", "dimension"), CLOSED)
def test_a_standard_solution_solves_its_equation(name, dimension):
    params = PdeParams(equation=name, dimension=dimension, points={"interior": 50})
    x, source = Draws(params, 0).draw(0)["interior"]
    u = formula_of(params, params.formula("solution"))
    left = torch.func.vmap(lambda point: Operator(params)(u, point))(x)
    assert torch.allclose(left, source, rtol=1e-12, atol=1e-12)
    assert u(x[0]).abs() > 0


@pytest.mark.parametrize("name", ["poisson", "heat"])
def test_a_solution_of_ones_own_gets_the_source_that_belongs_to_it(name):
    params = PdeParams(
        equation=name, dimension=2, solution="x^3*y", points={"interior": 20, "boundary": 9}
    )
    batch = Draws(params, 3).draw(0)
    x, source = batch["interior"]
    laplacian = 6 * x[:, 0] * x[:, 1]
    assert torch.allclose(source, -laplacian if name == "poisson" else -0.1 * laplacian)
    for group in batch.keys() - {"interior"}:
        x, known = batch[group]
        assert torch.allclose(known, x[:, 0] ** 3 * x[:, 1])


class _Wave(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Linear(3, 1, dtype=torch.float64)

    def forward(self, x):
        return torch.sin(self.inner(x)) * x[:, :1] ** 3


@pytest.mark.parametrize("chain", [True, False])
def test_a_formula_of_ones_own_is_of_the_derivatives_that_it_names(chain):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()
    network = network if chain else _Wave()
    params = PdeParams(
        equation="custom",
        residual="u_t+k*u*u_x-u_xx/2+u_xy^2+exp(-x)*lap_u+u_xxt-3",
        coefficients={"k": 2.0},
        time=1.0,
        initial="0",
        points={"interior": 4},
    )
    x, source = Draws(params, 0).draw(0)["interior"]
    model = residuals(network, params)

    def u(t):
        return model.network(t[None]).squeeze()

    def at(point):
        first, second = jacobian(u, point), hessian(u, point)
        third = jacobian(lambda p: hessian(u, p, create_graph=True)[0, 0], point)[2]
        left = first[2] + 2 * u(point) * first[0] - second[0, 0] / 2 + second[0, 1] ** 2
        return left + torch.exp(-point[0]) * (second[0, 0] + second[1, 1]) + third - 3

    expected = torch.stack([at(point) for point in x])
    found = torch.func.vmap(lambda p, s: model.functions["interior"](u, p, s))(x, source)
    assert torch.allclose(found, expected, rtol=1e-10)
    weighted = model({"interior": (x, source)})
    assert torch.allclose(weighted, expected, rtol=1e-10)


def test_a_periodic_boundary_compares_values_and_slopes_of_both_ends():
    params = PdeParams(equation="allen_cahn", points={"interior": 3, "boundary": 4})
    assert params.kind_of_boundary == "periodic"
    boundary = residuals(nn.Linear(2, 1, dtype=torch.float64), params).functions["boundary"]
    x, across = Draws(params, 0).draw(0)["boundary"]
    assert torch.equal(x[:, 0], torch.full((4,), -1.0, dtype=torch.float64))
    assert torch.equal(across, torch.tensor([[2.0, 0.0]] * 4, dtype=torch.float64))

    def u(point):
        return point[0] ** 3 * (1 + point[1])

    found = torch.stack([boundary(u, *each) for each in zip(x, across, strict=True)])
    assert torch.allclose(found[:, 0], 2 * (1 + x[:, 1]))
    assert torch.allclose(found[:, 1], torch.zeros(4, dtype=torch.float64), atol=1e-12)


@pytest.mark.parametrize("sampler", ["uniform", "latin_hypercube", "sobol", "grid"])
def test_points_lie_where_their_group_is(sampler):
    params = PdeParams(
        equation="heat",
        dimension=2,
        time=3.0,
        domain=[(0, 1), (-2, 5)],
        sampler=sampler,
        points={"interior": 100, "boundary": 45, "initial": 20},
    )
    draws = Draws(params, 0)
    batch = draws.draw(0)
    assert {g: len(t[0]) for g, t in batch.items()} == params.counts
    low, high = torch.tensor(params.box, dtype=torch.float64).T
    for points, *_ in batch.values():
        assert ((points >= low) & (points <= high)).all()
    assert (batch["initial"][0][:, 2] == 0).all()
    edge = batch["boundary"][0][:, :2]
    on = (edge == low[:2]) | (edge == high[:2])
    assert on.any(1).all()
    faces = [int((edge[:, i] == side[i]).sum()) for i in (0, 1) for side in (low, high)]
    assert min(faces) >= 45 // 4 - 3
    again, later = Draws(params, 0).draw(0), draws.draw(1)
    other = Draws(params, 1).draw(0)
    for group, (points, *_) in batch.items():
        assert torch.equal(points, again[group][0])
        for different in (later, other):
            assert torch.equal(points, different[group][0]) == (sampler == "grid")


def test_a_latin_hypercube_has_one_point_in_each_slice():
    points = unit_points("latin_hypercube", 40, 3, 0)
    slices = (points * 40).floor().sort(0).values
    assert torch.equal(slices, torch.arange(40.0, dtype=torch.float64)[:, None].expand(-1, 3))
    sobol = unit_points("sobol", 64, 2, 0)
    boxes = (sobol * 8).floor()
    assert len({tuple(box) for box in boxes.tolist()}) == 64, "one in each of 8x8 boxes"
    grid = unit_points("grid", 9, 2, 0)
    assert grid[:4].tolist() == [[1 / 6, 1 / 6], [1 / 6, 0.5], [1 / 6, 5 / 6], [0.5, 1 / 6]]


def test_transport_is_given_values_where_it_enters():
    for speed, side in ((1.0, 0.0), (-1.0, 1.0)):
        params = PdeParams(equation="advection", coefficients={"speed": speed})
        x, known = Draws(params, 0).draw(0)["boundary"]
        assert (x[:, 0] == side).all()
        assert torch.allclose(known, torch.sin(2 * math.pi * (x[:, 0] - speed * x[:, 1])))


def test_a_derivative_that_is_not_finite_is_told():
    params = PdeParams(solution="abs(x-0.5)^1.5*y", sampler="grid", points={"interior": 81})
    with pytest.raises(SpecError, match="derivative that is not finite at") as error:
        Draws(params, 0).draw(0)
    assert error.value.pointer == "/params/solution"


@pytest.mark.parametrize(
    ("solution", "fits"), [("x^2-y^2", True), ("x*y+3", True), ("x^2", False), ("x+y^3/10", False)]
)
def test_whether_a_solution_fits_an_equation_of_ones_own(solution, fits):
    params = PdeParams(equation="custom", residual="u_xx+u_yy", solution=solution)
    assert (Draws(params, 0).left_by_solution() < 1e-9) == fits
    assert Draws(PdeParams(), 0).left_by_solution() is None
    waves = {"dimension": 1, "time": 1.0, "residual": "u_tt-u_xx"}
    params = PdeParams(equation="custom", solution="sin(pi*x)*cos(pi*t)", **waves)
    assert Draws(params, 0).left_by_solution() < 1e-9


@pytest.mark.parametrize("sampler", ["uniform", "sobol"])
def test_fewer_points_than_faces_are_on_other_faces_each_time(sampler):
    params = PdeParams(dimension=20, sampler=sampler, points={"interior": 1, "boundary": 5})
    draws, seen = Draws(params, 0), set()
    for number in range(60):
        x = draws.draw(number)["boundary"][0]
        found = [(axis, v) for axis in range(20) for v in (0.0, 1.0) if (x[:, axis] == v).any()]
        assert (len(x), len(found)) == (5, 5)
        seen |= set(found)
    assert len(seen) == 40
