"""The solve that can be differentiated, against the one in place, and where it stands still."""

import pytest
import torch

from mlhf.curvature.pcg import pcg
from mlhf.meta.solve import solve

D = torch.float64


def _solved(system, scale=1.0, **settings):
    """The residual is the given one times a scale."""
    a, b, x, inverse = system
    b = a @ x + scale * (b - a @ x)
    return b, solve(lambda v: a @ v, b, x, b - a @ x, inverse, **settings)


@pytest.mark.parametrize("iterations", [1, 4])
def test_it_solves_as_the_one_in_place(system, iterations):
    a, b, x, inverse = system
    b, (found, residual) = _solved(system, iterations=iterations)
    expected = pcg(lambda v: a @ v, b, x, inverse, iterations=iterations)
    torch.testing.assert_close(found, expected.x, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(residual, expected.residual, rtol=1e-10, atol=1e-10)


def test_below_the_tolerance_nothing_moves(system):
    a, _, x, _ = system
    b, (found, residual) = _solved(system, scale=1e-9, iterations=4)
    assert 0 < (b - a @ x).norm() < 1e-6
    assert torch.equal(found, x)
    assert torch.equal(residual, b - a @ x)
    _, (moved, _) = _solved(system, scale=1e-9, iterations=4, tolerance=1e-12)
    assert not torch.equal(moved, x)


def test_what_has_converged_stands_still_from_there_on(system):
    _, (short, _) = _solved(system, iterations=9, tolerance=1e-3)
    _, (long, residual) = _solved(system, iterations=30, tolerance=1e-3)
    assert residual.norm() < 1e-3
    assert torch.equal(short, long)


@pytest.mark.parametrize("size", [0.0, 1e-170])
def test_a_curvature_of_zero_is_not_divided_by(size):
    """With no tolerance a solve does not stand still for another reason."""
    b = torch.full((3,), size, dtype=D)
    x, r = solve(
        lambda v: v, b, torch.zeros_like(b), b, torch.ones_like(b), iterations=4, tolerance=0.0
    )
    assert torch.equal(x, torch.zeros_like(b))
    assert torch.equal(r, b)


def test_gradients_are_finite_where_nothing_moves(system):
    a, _, x, inverse = system
    inverse = inverse.clone().requires_grad_()
    b = a @ x
    found, _ = solve(lambda v: a @ v, b, x, torch.zeros_like(b), inverse, iterations=4)
    (gradient,) = torch.autograd.grad(found.sum(), inverse)
    assert torch.equal(gradient, torch.zeros_like(gradient))
