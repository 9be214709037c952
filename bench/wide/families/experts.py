"""Mixtures of experts: a gate sends each image to one or two of several small networks."""

import torch
from torch import Tensor, nn

from bench.wide.task import Size, Version, WideTask, traced
from mlhf.core.config import Component


def task(version: Version, size: Size) -> WideTask:
    """Return one of four experts on MNIST at 14x14; judged: two of six on Fashion-MNIST."""
    tiny = size == "tiny"
    if version == "development":
        name, width, hidden, experts, used, batch = "mnist", 48, 64, 4, 1, 128
    else:
        name, width, hidden, experts, used, batch = "fashion_mnist", 40, 48, 6, 2, 100
    samples = 300 if tiny else 6000
    return WideTask(
        "experts",
        version,
        lambda: traced(_Mixture(width, hidden, experts, used), torch.randn(2, 1, 14, 14)),
        Component(name=name, params={"size": 14, "train_samples": samples, "test_samples": 1000}),
        steps=10 if tiny else 1200,
        batch_size=batch,
        train_samples=samples,
        needs=("mnist",) if name == "mnist" else (),
    )


class _Mixture(nn.Module):
    """Pixels to a vector, experts around it, a residual, and ten classes.

    The gate is a softmax of which all but the ``used`` largest weights are 0.
    """

    def __init__(self, width: int, hidden: int, experts: int, used: int) -> None:
        super().__init__()
        self.used = used
        self.enter, self.gate = nn.Linear(196, width), nn.Linear(width, experts)
        self.up = nn.ModuleList(nn.Linear(width, hidden) for _ in range(experts))
        self.down = nn.ModuleList(nn.Linear(hidden, width) for _ in range(experts))
        self.head = nn.Linear(width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 1, 14, 14) to (B, 10)."""
        h = torch.tanh(self.enter(x.flatten(1)))
        weights = torch.softmax(self.gate(h), 1)
        least = torch.topk(weights, self.used, 1).values[:, -1:]
        weights = torch.where(weights >= least, weights, 0.0)
        found = [
            weights[:, at : at + 1] * down(torch.relu(up(h)))
            for at, (up, down) in enumerate(zip(self.up, self.down, strict=True))
        ]
        logits: Tensor = self.head(h + sum(found[1:], found[0]))
        return logits
