"""The small minimum against a dense solve."""

import numpy as np
import pytest
import torch

from mlhf.optimizers.mlhf.kronecker.subspace import bilinear, gram_matrix, minimum


def test_the_minimum_is_the_dense_solution():
    generator = np.random.default_rng(0)
    a = generator.standard_normal((3, 3))
    matrix, r = a @ a.T + np.eye(3), generator.standard_normal(3)
    np.testing.assert_allclose(minimum(matrix, r), np.linalg.solve(matrix, r), rtol=1e-5)


def test_a_bilinear_form_is_the_dense_one():
    generator = np.random.default_rng(1)
    a, m, b = (generator.standard_normal(s) for s in ((3,), (3, 4), (4,)))
    assert bilinear(a, m, b) == pytest.approx(a @ m @ b)


def test_scales_of_the_directions_do_not_matter():
    matrix, r = np.array([[2.0, 0.5], [0.5, 1.0]]), np.array([1.0, -1.0])
    scale = np.array([1e-9, 1e9])
    scaled = minimum(matrix * np.outer(scale, scale), r * scale) * scale
    np.testing.assert_allclose(scaled, minimum(matrix, r))


def test_a_zero_direction_gets_coefficient_zero():
    found = minimum(np.array([[2.0, 0.0], [0.0, 0.0]]), np.array([1.0, 0.0]))
    assert found[1] == 0
    assert abs(found[0] - 0.5) < 1e-6


def test_parallel_directions_give_finite_coefficients():
    found = minimum(np.ones((2, 2)), np.ones(2))
    assert np.isfinite(found).all()
    assert abs(found.sum() - 1) < 1e-5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_gives_no_number_and_no_error(value):
    assert np.isnan(minimum(np.array([[value, 0.0], [0.0, 1.0]]), np.ones(2))).all()
    assert np.isnan(minimum(np.eye(2), np.array([value, 1.0]))).all()


def test_the_gram_matrix_sums_over_outputs():
    u = [[torch.tensor([1.0, 2.0]), torch.tensor([3.0])], [torch.tensor([0.0, 1.0]), torch.ones(1)]]
    h = [[2 * t for t in ts] for ts in u]
    assert gram_matrix(u, h).tolist() == [[28.0, 10.0], [10.0, 4.0]]
