"""Use MLHF in a training loop of your own, beside AdamW from torch.

    python examples/own_loop.py

It shows the two loops, and compares nothing: AdamW's rate is not tuned.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlhf import MLHF

EPOCHS, BATCH = 10, 64


def main() -> dict[str, float]:
    """Train the same network with both; returns the training loss that each ends with."""
    torch.set_flush_denormal(True)  # processors are slow with the numbers that dead units leave
    torch.manual_seed(0)
    x = torch.randn(1024, 20)
    y = (x.square().sum(1) > 20).long()
    losses = {"adamw": with_adamw(network(), x, y), "mlhf": with_mlhf(network(), x, y)}
    for name, loss in losses.items():
        print(f"{name}: training loss {loss:.4f}")
    return losses


def network() -> nn.Module:
    """Return the network, with the same weights each time."""
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 2))


def with_adamw(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """The usual loop: zero the gradients, compute the loss, go backward, step."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.zero_grad()
            functional.cross_entropy(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return evaluated(model, x, y)


def with_mlhf(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """MLHF's step takes the batch: it computes the loss and the curvature itself."""
    optimizer = MLHF(model, loss="cross_entropy")
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            optimizer.step(x[rows], y[rows])
    optimizer.eval_mode()  # the average of the weights; train_mode() before the next step
    return evaluated(model, x, y)


def evaluated(model: nn.Module, x: Tensor, y: Tensor) -> float:
    """Return the loss on all samples."""
    with torch.no_grad():
        return float(functional.cross_entropy(model(x), y))


if __name__ == "__main__":
    main()
