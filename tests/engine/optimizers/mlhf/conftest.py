import torch
from torch import nn

from mlhf.optimizers.mlhf.paper.weights import NetworkWeights


class Tanh(nn.Module):
    """A small network with all six kinds: convolution, batch norm, dense."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(2, 3, 3)
        self.norm = nn.BatchNorm1d(3)
        self.dense = nn.Linear(9, 3)

    def forward(self, x):
        return self.dense(torch.tanh(self.norm(self.conv(x))).flatten(1))


def loud(seed, dtype=torch.float32):
    """Weights whose outputs differ visibly between coordinates, kinds and steps."""
    weights = NetworkWeights(seed=seed)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for p in weights.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.8)
    return weights.to(dtype)
