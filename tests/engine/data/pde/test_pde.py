"""Equations as parameters: what is refused, and which points there are."""

import numpy as np
import pytest

from mlhf.core.errors import SpecError
from mlhf.core.expressions import ExpressionError, parse
from mlhf.data.loading import load
from mlhf.data.pde.catalogue import CATALOGUE
from mlhf.data.pde.family import measured_points, solution_values
from mlhf.data.pde.names import Coordinates, Variables
from mlhf.data.pde.params import PdeParams
from mlhf.data.specs import DATASETS, describe, digest, validate

OWN = {"equation": "custom", "residual": "u_xx+u_yy"}


@pytest.mark.parametrize(
    ("params", "pointer", "message"),
    [
        ({"equation": "poison"}, "/params/equation", "poisson"),
        ({"dimension": 0}, "/params/dimension", "1"),
        ({"equation": "custom"}, "/params", "needs the formula `residual`"),
        ({"residual": "u"}, "/params", "poisson has its own"),
        ({"time": 1}, "/params", "poisson has no time"),
        ({"equation": "heat", "coefficients": {"speed": 1}}, "/params", "it has diffusivity"),
        ({**OWN, "coefficients": {"x": 1}}, "/params", "called 'x', as a coordinate"),
        ({**OWN, "coefficients": {"u_x": 1}}, "/params", "as u or a derivative"),
        ({"domain": [1, 1]}, "/params/domain", "not below"),
        ({"domain": [[0, 1]]}, "/params", "1 intervals for 2 coordinates"),
        ({"points": {"initial": 5}}, "/params", "initial values need time"),
        ({"points": {"interior": 0}}, "/params/points/interior", "1"),
        ({"points": {"interior": 65_536}}, "/params", "a step takes at most 65,536"),
        ({"solution": "x*"}, "/params", "solution 'x\\*' ends where a number"),
        ({"solution": "u"}, "/params", "known are x, y"),
        ({"solution": "x", "source": "1"}, "/params", "solution or source, not both"),
        ({"solution": "x", "boundary": "1"}, "/params", "solution or boundary, not both"),
        ({**OWN, "source": "1"}, "/params", "into its residual"),
        ({**OWN, "residual": "u_xt"}, "/params", "known are lap_u, u, u_x, u_xx, u_y, x, y"),
        ({"equation": "heat", "source": "1"}, "/params", "give initial"),
        ({**OWN, "residual": "x^2"}, "/params", "names neither u nor a derivative"),
        ({"equation": "burgers", "coefficients": {"viscosity": 1e-6}}, "/params", "below 0.0001"),
        ({"equation": "allen_cahn", "domain": [0, 1]}, "/params", "computed on \\[-1, 1\\]"),
        ({"equation": "allen_cahn", "coefficients": {"reaction": 0}}, "/params", "above 0"),
        ({"equation": "burgers", "time": 11}, "/params", "time is above 10"),
        ({"dimension": 20, "sampler": "grid"}, "/params", "at least 1,048,576 points"),
        ({"dimension": 100, "test_points": 100_000}, "/params", "test_points is above 41,943"),
        ({"resample_every": -1}, "/params/resample_every", "0"),
        ({"train_samples": 5}, "/params/train_samples", "not a parameter|unknown|not allowed"),
        ({"solution": "log(x-0.5)"}, "/params/solution", "no finite value at"),
    ],
)
def test_what_makes_no_equation_is_refused(params, pointer, message):
    with pytest.raises(SpecError, match=message) as error:
        describe("pde", params)
    assert error.value.pointer == pointer


@pytest.mark.parametrize(
    ("params", "shape", "train", "test"),
    [
        ({}, (2,), 1020, 4096),
        ({"dimension": 1}, (1,), 902, 4096),
        ({"dimension": 5}, (5,), 1020, 4096),
        ({"equation": "burgers", "test_points": 100}, (2,), 1080, 100),
        ({"equation": "heat", "dimension": 2, "test_points": 30}, (3,), 1080, 27),
        ({"sampler": "grid", "points": {"interior": 90, "boundary": 50}}, (2,), 81 + 48, 4096),
        ({"source": "1"}, (2,), 1020, 0),
        ({**OWN, "time": 2, "initial": "x", "points": {"boundary": 0}}, (3,), 960, 0),
    ],
)
def test_sizes(params, shape, train, test):
    for look in (describe, validate):
        info = look("pde", params)
        assert (info.input_shape, info.train_samples, info.test_samples) == (shape, train, test)
        assert (info.task, info.outputs) == ("regression", 1)
    parsed = DATASETS.parse("pde", params)
    if test:
        points = measured_points(parsed)
        assert points.shape == (test, *shape)
        box = np.array(parsed.box)
        assert ((points >= box[:, 0]) & (points <= box[:, 1])).all()
        assert np.isfinite(solution_values(parsed, points)).all()


def test_it_has_no_samples():
    with pytest.raises(SpecError, match="pde has no samples"):
        load("pde", {})
    assert digest("pde", {}) == digest("pde", {"dimension": 3})


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.parametrize("dimension", [1, 2, 100])
def test_every_entry_can_be_read_in_any_dimension(name, dimension):
    params = PdeParams(equation=name, dimension=dimension)
    assert params.formula("residual") is not None
    assert params.has_solution
    assert (params.formula("solution") is None) == (params.reference is not None)
    computed = dimension == 1 and CATALOGUE[name].reference is not None
    assert (params.reference is not None) == computed


def test_names_of_derivatives():
    plane = Coordinates(2, True)
    assert plane.names == ("x", "y", "t")
    assert plane.derivative("u_xxy") == (0, 0, 1) == plane.derivative("u_x1x1x2")
    assert plane.derivative("u_tt") == (2, 2)
    for wrong in ("u_", "u_z", "u_x3", "u_xxxxx", "u_x0", "v_x", "u_xq"):
        assert plane.derivative(wrong) is None
    many = Coordinates(12, False)
    assert many.derivative("u_x12x1") == (11, 0)
    assert many.derivative("u_x") is None
    allowed = Variables(many, ("k",), unknown=True)
    assert parse("k*u_x12x1+lap_u", allowed).variables == {"k", "u_x12x1", "lap_u"}
    with pytest.raises(ExpressionError, match="known are"):
        parse("u", Variables(many, ("k",)))
