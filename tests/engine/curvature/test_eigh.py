"""Eigenvalues that LAPACK finds, and NaN in place of its errors."""

import pytest
import torch

from mlhf.curvature.eigh import eigh


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_it_decomposes(dtype):
    a = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    matrices = (a + a.mT).to(dtype)
    values, vectors = eigh(matrices)
    assert (values.diff(dim=-1) >= 0).all()
    rebuilt = (vectors * values.unsqueeze(-2)) @ vectors.mT
    assert (rebuilt - matrices).abs().max() < 100 * torch.finfo(dtype).eps


def test_only_what_is_not_finite_has_no_eigenvalues():
    matrices = torch.eye(3).repeat(3, 1, 1)
    matrices[1, 0, 0] = torch.nan
    matrices[2, 1, 2] = matrices[2, 2, 1] = torch.inf
    values, vectors = eigh(matrices)
    assert values[0].tolist() == [1, 1, 1]
    assert values[1:].isnan().all()
    assert torch.equal(vectors[1], torch.eye(3))
    assert values.dtype == torch.float32


def test_a_single_matrix_that_is_not_finite():
    values, vectors = eigh(torch.full((2, 2), torch.nan))
    assert values.isnan().all()
    assert torch.equal(vectors, torch.eye(2))
