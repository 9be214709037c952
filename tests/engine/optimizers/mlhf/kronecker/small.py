"""A small network in float64, and batches for it."""

import torch
from torch import nn


def model_of(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def batches(count, size=16):
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(size, 5, generator=generator).double(),
            torch.randint(0, 3, (size,), generator=generator),
        )
        for _ in range(count)
    ]


def theta(model):
    return torch.cat([p.detach().reshape(-1) for p in model.parameters()])
