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


def test_what_is_not_finite_has_no_eigenvalues_and_hides_nothing_of_the_others():
    matrices = torch.eye(4).repeat(2, 1, 1)
    matrices[1] = torch.nan
    with pytest.raises(torch.linalg.LinAlgError):
        torch.linalg.eigh(matrices)
    values, vectors = eigh(matrices)
    assert values[0].tolist() == [1, 1, 1, 1]
    assert values[1].isnan().all()
    assert torch.equal(vectors[1], torch.eye(4))
    assert values.dtype == torch.float32
