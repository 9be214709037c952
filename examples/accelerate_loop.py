"""Train with MLHF in a loop of Hugging Face accelerate, with gradient accumulation.

    pip install '.[trainers]'
    python examples/accelerate_loop.py

Lines that are there for MLHF end in ``# MLHF``.
"""

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from mlhf import MLHF  # MLHF


def main(mixed_precision: str = "no", epochs: int = 6) -> list[float]:
    """Return the mean loss of each epoch."""
    torch.manual_seed(0)
    x = torch.randn(512, 20)
    y = (x.square().sum(1) > 20).long()
    model = nn.Sequential(nn.Linear(20, 64), nn.Tanh(), nn.Linear(64, 2))
    accelerator = Accelerator(
        cpu=True, gradient_accumulation_steps=2, mixed_precision=mixed_precision
    )
    optimizer = mlhf = MLHF(model, loss="cross_entropy")  # MLHF
    data = DataLoader(TensorDataset(x, y), batch_size=32, shuffle=True)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.99)
    model, optimizer, data, scheduler = accelerator.prepare(model, optimizer, data, scheduler)
    losses = []
    for _ in range(epochs):
        total = 0.0
        for inputs, targets in data:
            with accelerator.accumulate(model):
                loss = mlhf.loss(model(inputs), targets)  # MLHF
                accelerator.backward(loss)
                accelerator.clip_grad_norm_(model.parameters(), 5.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
            total += float(loss.detach())
        losses.append(total / len(data))
    print("loss by epoch:", ", ".join(f"{loss:.3f}" for loss in losses))
    return losses


if __name__ == "__main__":
    main()
