"""What tests of several packages share."""

import pytest
import torch

MODEL = {
    "name": "mlp",
    "params": {"hidden": [16], "batch_norm": True, "dropout": 0.2},
}


@pytest.fixture(autouse=True)
def _seeded():
    """A test draws the same numbers whichever tests its process ran before."""
    torch.manual_seed(0)


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


def _config(optimizer="adam", **changes):
    return {
        "model": MODEL,
        "dataset": {"name": "digits", "params": {"train_samples": 300, "test_samples": 50}},
        "optimizer": {"name": optimizer} if isinstance(optimizer, str) else optimizer,
        "budget": {"steps": 20},
        "batch_size": 32,
        "seed": 3,
        "threads": 1,
        "device": "cpu",
        **changes,
    }


@pytest.fixture
def config():
    """Makes a small run's configuration: 10 steps an epoch, dropout and batch norm."""
    return _config
