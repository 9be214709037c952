"""Conjugate gradients with fused vector work are those without."""

import pytest
import torch

from mlhf.curvature.pcg import pcg
from mlhf.optimizers.mlhf.kernels.vectors import FusedVectors


@pytest.mark.parametrize("n", [1, 15, 16, 1041, 70_003])
@pytest.mark.parametrize("iterations", [1, 4])
def test_fused_solves_equal_plain_ones_in_double(n, iterations):
    if not FusedVectors.can(torch.zeros(1)):
        pytest.skip("no compiler")
    generator = torch.Generator().manual_seed(n)
    diagonal, b, x0, inverse = (torch.rand(n, generator=generator) + 0.1 for _ in range(4))
    exact = [t.double() for t in (diagonal, b, x0, inverse)]

    def product(v):
        v = v.double()
        return exact[0] * v + 0.3 / n * v.sum()

    fused = pcg(
        lambda v: product(v).float(), b, x0, inverse, iterations=iterations, vectors=FusedVectors
    )
    plain = pcg(product, *exact[1:], iterations=iterations)
    for name in ("x", "residual"):
        found, expected = getattr(fused, name).double(), getattr(plain, name)
        assert (found - expected).abs().max() < 1e-5 * exact[1].max(), name
    for name in ("residual_norm", "initial_residual_norm", "curvature"):
        found, expected = getattr(fused, name).double(), getattr(plain, name)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6), name
    assert int(plain.iterations) == int(fused.iterations)


def test_threads_change_no_bit():
    if not FusedVectors.can(torch.zeros(1)):
        pytest.skip("no compiler")
    n = 300_001
    generator = torch.Generator().manual_seed(0)
    diagonal, b, inverse = (torch.rand(n, generator=generator) + 0.1 for _ in range(3))
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            dots = pcg(lambda v: diagonal * v, b, None, inverse, vectors=FusedVectors)
            found.append(dots)
    finally:
        torch.set_num_threads(before)
    # torch's own dot product may differ by threads; sums of ours may not
    assert torch.equal(found[0].initial_residual_norm, found[1].initial_residual_norm)
    assert torch.allclose(found[0].x, found[1].x, rtol=1e-3, atol=1e-3)


def test_what_is_not_finite_shows():
    if not FusedVectors.can(torch.zeros(1)):
        pytest.skip("no compiler")
    b = torch.ones(20)
    b[3] = float("nan")
    solved = pcg(lambda v: 2 * v, b, None, torch.ones(20), vectors=FusedVectors)
    assert bool(solved.x.isnan().any())
    assert bool(solved.residual_norm.isnan())
