"""What tests of both solvers share."""

import pytest
import torch


@pytest.fixture
def system():
    """A positive definite A, b, x0 and a positive diagonal, of eight unknowns in float64."""
    kind = torch.float64
    generator = torch.Generator().manual_seed(0)
    half = torch.randn(8, 8, generator=generator, dtype=kind)
    a = half @ half.T + torch.eye(8, dtype=kind)
    b, x0 = (torch.randn(8, generator=generator, dtype=kind) for _ in range(2))
    inverse = torch.rand(8, generator=generator, dtype=kind) + 0.5
    return a, b, x0, inverse
