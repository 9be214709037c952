import torch
from torch import nn

from tests.engine.optimizers.mlhf.conftest import Tanh


class Plain:
    """A task of random data on a small network of all six kinds."""

    name, loss, samples, batch_size = "plain", "cross_entropy", 64, 8

    def __init__(self, dtype=torch.float64):
        generator = torch.Generator().manual_seed(9)
        self._x = torch.randn(64, 2, 5, generator=generator, dtype=dtype)
        self._y = torch.randint(0, 3, (64,), generator=generator)
        self._dtype = dtype

    def model(self, seed):
        torch.manual_seed(seed)
        return Tanh().to(self._dtype)

    def batch(self, generator):
        chosen = torch.randint(64, (8,), generator=generator)
        return self._x[chosen], self._y[chosen]


class Square(nn.Module):
    """f = x² of one parameter."""

    def __init__(self):
        super().__init__()
        self.x = nn.Parameter(torch.ones(1, 1))

    def forward(self, inputs):
        return inputs @ self.x


class SquareTask:
    name, samples, batch_size = "square", 1, 1

    def loss(self, z, y):
        return z.square().sum()

    def model(self, seed):
        return Square()

    def batch(self, generator):
        return torch.ones(1, 1), torch.zeros(1)
