"""The small minimum against a dense solve."""

import torch

from engine.mlhf.kronecker.subspace import curvatures, minimum


def test_the_minimum_is_the_dense_solution():
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    matrix = a @ a.T + torch.eye(3)
    r = torch.randn(3, generator=generator, dtype=torch.float64)
    torch.testing.assert_close(minimum(matrix, r), torch.linalg.solve(matrix, r), rtol=1e-5, atol=0)


def test_scales_of_the_directions_do_not_matter():
    matrix = torch.tensor([[2.0, 0.5], [0.5, 1.0]], dtype=torch.float64)
    r = torch.tensor([1.0, -1.0], dtype=torch.float64)
    scale = torch.tensor([1e-9, 1e9], dtype=torch.float64)
    scaled = minimum(matrix * torch.outer(scale, scale), r * scale) * scale
    torch.testing.assert_close(scaled, minimum(matrix, r))


def test_a_zero_direction_gets_no_part():
    found = minimum(torch.tensor([[2.0, 0.0], [0.0, 0.0]]), torch.tensor([1.0, 0.0]))
    assert float(found[1]) == 0
    assert abs(float(found[0]) - 0.5) < 1e-6


def test_parallel_directions_give_finite_parts():
    found = minimum(torch.ones(2, 2), torch.ones(2))
    assert torch.isfinite(found).all()
    assert abs(float(found.sum()) - 1) < 1e-5


def test_curvatures_sum_over_outputs():
    u = [[torch.tensor([1.0, 2.0]), torch.tensor([3.0])], [torch.tensor([0.0, 1.0]), torch.ones(1)]]
    h = [[2 * t for t in ts] for ts in u]
    assert curvatures(u, h).tolist() == [[28.0, 10.0], [10.0, 4.0]]
