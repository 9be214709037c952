"""PCG against SciPy's, dense solves, and its own edge cases."""

import numpy as np
import pytest
import scipy.sparse.linalg
import torch

from mlhf.curvature.pcg import PCGStatus, Workspace, pcg

D = torch.float64


@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("warm", [False, True])
def test_iterates_are_scipys(system, preconditioned, warm):
    a, b, x0, inverse = system
    iterates = []
    scipy.sparse.linalg.cg(
        a.numpy(),
        b.numpy(),
        x0=x0.numpy() if warm else None,
        rtol=0,
        maxiter=6,
        M=np.diag(inverse.numpy()) if preconditioned else None,
        callback=lambda x: iterates.append(x.copy()),
    )
    for n, theirs in enumerate(iterates, start=1):
        result = pcg(
            lambda v: a @ v,
            b,
            x0 if warm else None,
            inverse if preconditioned else None,
            iterations=n,
        )
        np.testing.assert_allclose(result.x.numpy(), theirs, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(result.residual, b - a @ result.x, atol=1e-9)
        np.testing.assert_allclose(result.curvature, result.x @ a @ result.x, rtol=1e-9)
        assert result.iterations == n
        start = x0 if warm else torch.zeros_like(b)
        initial, last = (torch.linalg.norm(b - a @ x) for x in (start, result.x))
        torch.testing.assert_close(result.initial_residual_norm, initial, rtol=1e-12, atol=0)
        torch.testing.assert_close(result.residual_norm, last, rtol=1e-9, atol=1e-12)


def test_as_many_iterations_as_unknowns_solve(system):
    a, b, x0, inverse = system
    for p in (None, inverse):
        result = pcg(lambda v: a @ v, b, x0, p, iterations=8)
        assert torch.allclose(result.x, torch.linalg.solve(a, b), rtol=1e-8)


def test_no_preconditioner_is_the_identity(system):
    a, b, x0, _ = system
    one, none = (pcg(lambda v: a @ v, b, x0, p) for p in (torch.ones_like(b), None))
    assert torch.equal(one.x, none.x)


def test_the_exact_inverse_solves_at_once():
    diagonal = torch.tensor([1.0, 5.0, 100.0], dtype=D)
    b = torch.tensor([3.0, -2.0, 7.0], dtype=D)
    result = pcg(lambda v: diagonal * v, b, inverse=1 / diagonal, iterations=1)
    assert torch.allclose(result.x, b / diagonal, rtol=1e-14)


def test_a_converged_solve_stands_still(system):
    a, b, _, _ = system
    short = pcg(lambda v: a @ v, b, iterations=8, atol=1e-3)
    long = pcg(lambda v: a @ v, b, iterations=30, atol=1e-3)
    assert long.converged
    assert torch.equal(short.x, long.x)
    assert long.iterations <= 8
    zero = pcg(lambda v: a @ v, torch.zeros_like(b), iterations=3)
    assert zero.iterations == 0
    assert torch.equal(zero.x, torch.zeros_like(b))


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize(
    ("diagonal", "b"),
    [
        ([2.0, 0.0], [0.0, 0.0]),
        ([2.0, 0.0], [4.0, 0.0]),  # solved by the first iteration
        ([2.0, 0.0], [1e-170, 0.0]),  # whose square is zero
        ([2.0, -1e-300], [0.0, 1e-170]),  # of negative curvature, by rounding as it were
    ],
)
def test_a_curvature_of_zero_is_not_divided_by(diagonal, b, iterations, preconditioned, short):
    """With no tolerance such a solve never stands still for another reason."""
    a, b = torch.tensor(diagonal, dtype=D), torch.tensor(b, dtype=D)
    inverse = torch.full_like(b, 0.5) if preconditioned else None
    quadratic = (lambda v: v @ (a * v)) if short else None
    x0 = torch.zeros_like(b)
    result = pcg(
        lambda v: a * v, b, x0, inverse, iterations=iterations, atol=0.0, quadratic=quadratic
    )
    assert torch.allclose(result.x, torch.where(b > 1, b / 2, 0.0))
    assert torch.isfinite(result.residual_norm)


def test_the_short_last_iteration_gives_the_same_solution(system):
    a, b, x0, inverse = system
    whole = pcg(lambda v: a @ v, b, x0, inverse, iterations=3)
    before = pcg(lambda v: a @ v, b, x0, inverse, iterations=2)
    calls = []

    def product(v):
        calls.append(1)
        return a @ v

    short = pcg(product, b, x0, inverse, iterations=3, quadratic=lambda v: v @ a @ v)
    assert torch.allclose(short.x, whole.x, rtol=1e-13)
    assert len(calls) == 3  # the warm start's and two
    assert short.residual is None
    assert torch.equal(short.residual_norm, before.residual_norm)


def test_inputs_are_left_alone_and_a_workspace_changes_nothing(system):
    a, b, x0, inverse = system
    kept = [t.clone() for t in (b, x0, inverse)]
    first = pcg(lambda v: a @ v, b, x0, inverse)
    space = Workspace(b)
    for _ in range(2):
        second = pcg(lambda v: a @ v, b, x0, inverse, workspace=space)
        assert torch.equal(first.x, second.x)
    assert all(torch.equal(t, k) for t, k in zip((b, x0, inverse), kept, strict=True))
    own = x0.clone()
    assert pcg(lambda v: a @ v, b, own, inverse, overwrite=True).x is own


def test_what_is_not_finite_shows():
    b = torch.tensor([1.0, float("nan")])
    assert not torch.isfinite(pcg(lambda v: v, b, iterations=2).x).all()


NOT_POSITIVE = [
    ([1.0, -1.0, 2.0], [1.0, 1.2, 1.0]),  # at the second direction
    ([-1.0, -1.0, -1.0], [1.0, 1.2, 1.0]),  # at once
    ([0.0, 0.0, 0.0], [1.0, 1.2, 1.0]),
    ([1e10, -1e10, 1.0], [1e-3, 1e3, 1.0]),
    ([1.0, -1e-30, 1.0], [0.0, 1.0, 0.0]),
]


@pytest.mark.parametrize("short", [False, True])
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("preconditioned", [False, True])
@pytest.mark.parametrize("iterations", [1, 2, 3, 8])
@pytest.mark.parametrize(("diagonal", "b"), NOT_POSITIVE)
def test_negative_curvature_ends_a_solve_in_a_finite_descent_step(
    diagonal, b, iterations, preconditioned, warm, short
):
    a, b = torch.tensor(diagonal), torch.tensor(b)
    inverse = torch.tensor([0.5, 2.0, 1.0]) if preconditioned else None
    x0 = torch.tensor([0.3, -2.0, 0.1]) if warm else None
    result = pcg(
        lambda v: a * v,
        b,
        x0,
        inverse,
        iterations=iterations,
        quadratic=(lambda v: v @ (a * v)) if short else None,
    )
    assert torch.isfinite(result.x).all()
    assert torch.isfinite(result.residual_norm)
    if result.negative_curvature:
        assert result.status == PCGStatus.NEGATIVE_CURVATURE
        assert result.iterations < iterations
        assert b @ result.x > 0
    if iterations == 8:
        assert result.negative_curvature


def test_where_a_solve_ends_at_negative_curvature():
    b = torch.tensor([1.0, 1.2, 1.0], dtype=D)
    a = torch.tensor([1.0, -1.0, 2.0], dtype=D)
    second, first = (pcg(lambda v: a * v, b, iterations=n) for n in (5, 1))
    assert first.status == PCGStatus.ITERATIONS
    assert second.status == PCGStatus.NEGATIVE_CURVATURE
    assert torch.equal(second.x, first.x)  # the iterate before
    assert second.iterations == 1
    torch.testing.assert_close(second.residual, b - a * second.x)
    inverse = torch.tensor([0.5, 2.0, 1.0], dtype=D)
    at_once = pcg(lambda v: -v, b, None, inverse)
    p, ry = inverse * b, b @ (inverse * b)
    assert at_once.iterations == 0
    torch.testing.assert_close(at_once.x, p * ry / (ry + p @ p))


def test_tolerances_are_relative_to_the_right_side_or_absolute(system):
    a, b, _, inverse = system
    for scale in (1e-8, 1.0, 1e8):
        result = pcg(lambda v: a @ v, scale * b, None, inverse, iterations=40, rtol=1e-3, atol=0)
        assert result.status == PCGStatus.CONVERGED
        assert result.residual_norm < 1e-3 * scale * torch.linalg.norm(b)
        assert result.iterations <= 8
    absolute = pcg(lambda v: a @ v, b, iterations=40, rtol=1e-12, atol=1e-3)
    assert torch.equal(absolute.x, pcg(lambda v: a @ v, b, iterations=40, atol=1e-3).x)


@pytest.mark.parametrize("preconditioned", [False, True])
def test_a_recomputed_residual_does_not_drift(preconditioned):
    n = 60
    generator = torch.Generator().manual_seed(0)
    q = torch.linalg.qr(torch.randn(n, n, generator=generator)).Q
    a = (q * torch.logspace(-4, 0, n)) @ q.T
    b = torch.randn(n, generator=generator)
    inverse = 1 / a.diagonal() if preconditioned else None
    drift = {}
    for every in (None, 5):
        solved = pcg(
            lambda v: a @ v, b, None, inverse, iterations=201, atol=0, recompute_every=every
        )
        drift[every] = torch.linalg.norm(b - a @ solved.x - solved.residual).item()
    assert drift[5] < 0.5 * drift[None]
    with pytest.raises(ValueError, match="recompute_every"):
        pcg(lambda v: v, b, recompute_every=0)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("iterations", [1, 3])
@pytest.mark.parametrize("cheap_last", [False, True])
def test_products_without_a_value_end_in_a_steepest_descent_step(bad, iterations, cheap_last):
    """At the first direction; by half a step of P, as if the curvature were that of P⁻¹."""
    a = torch.diag(torch.tensor([bad, 1.0, 2.0]))
    b, inverse = torch.tensor([1.0, -2.0, 3.0]), torch.tensor([0.5, 1.0, 0.25])
    for x0 in (None, torch.ones(3)):
        result = pcg(
            lambda v: a @ v,
            b,
            x0,
            inverse,
            iterations=iterations,
            least_curvature=lambda p: torch.tensor(1e-3),
            quadratic=(lambda v: v @ (a @ v)) if cheap_last else None,
        )
        assert torch.allclose(result.x, 0.5 * inverse * b)
        assert result.negative_curvature
        assert result.status == PCGStatus.NEGATIVE_CURVATURE


def test_where_a_later_product_has_no_value_the_iterate_before_it_stays():
    a, b = torch.diag(torch.tensor([1.0, 3.0, 5.0])), torch.tensor([1.0, 1.0, 1.0])
    products = iter(range(10))

    def product(v):
        return a @ v if next(products) == 0 else v * torch.nan

    first = pcg(lambda v: a @ v, b, iterations=1)
    result = pcg(product, b, iterations=4, least_curvature=lambda p: torch.tensor(0.0))
    assert torch.equal(result.x, first.x)
    assert result.residual.isfinite().all()
    assert result.iterations == 1


def test_without_a_gradient_nothing_moves_whatever_the_products():
    result = pcg(
        lambda v: v * torch.nan,
        torch.zeros(3),
        torch.zeros(3),
        iterations=3,
        least_curvature=lambda p: torch.tensor(0.0),
    )
    assert torch.equal(result.x, torch.zeros(3))
