"""Train with MLHF in the usual loop of torch: groups, a schedule, clipping, micro-batches.

    python examples/torch_loop.py

Lines that are there for MLHF end in ``# MLHF``.
"""

import torch
from torch import nn
from torch.nn import functional

from mlhf import MLHF  # MLHF

EPOCHS, BATCH, MICROBATCHES = 8, 64, 2


def main() -> tuple[float, float]:
    """Return the loss on all samples before and after training."""
    torch.manual_seed(0)
    x = torch.randn(1024, 1, 8, 8)
    y = (x[:, 0, :4].sum((1, 2)) > x[:, 0, 4:].sum((1, 2))).long()
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 2)
    )
    matrices = [p for p in model.parameters() if p.ndim > 1]
    vectors = [p for p in model.parameters() if p.ndim == 1]
    groups = [{"params": matrices, "weight_decay": 1e-4}, {"params": vectors}]
    optimizer = MLHF(model, loss="cross_entropy", parameters=groups)  # MLHF
    steps = EPOCHS * len(x) // BATCH
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps, eta_min=0.1)
    first = evaluated(model, x, y)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(x)).split(BATCH):
            for part in rows.chunk(MICROBATCHES):
                loss = optimizer.loss(model(x[part]), y[part])  # MLHF
                (loss / MICROBATCHES).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 5.0)
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    optimizer.eval()  # MLHF: the average of the weights; train() before the next step
    last = evaluated(model, x, y)
    print(f"loss {first:.3f} before, {last:.3f} after; last rate {scheduler.get_last_lr()[0]:.2f}")
    return first, last


def evaluated(model: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    """Return the loss on all samples."""
    model.eval()
    with torch.no_grad():
        loss = functional.cross_entropy(model(x), y)
    model.train()
    return float(loss)


if __name__ == "__main__":
    main()
