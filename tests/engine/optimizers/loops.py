"""What tests of training loops share: every second-order optimizer, a network and a batch."""

import torch
from torch import nn

from mlhf import MLHF, HessianFree
from mlhf.optimizers.kfac.kfac import Kfac
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt

OPTIMIZERS = {
    "mlhf": MLHF,
    "paper": lambda model, loss="cross_entropy": MLHF(model, loss, variant="paper"),
    "hf": HessianFree,
    "hf_lm": lambda model, loss="cross_entropy": HessianFree(model, loss, LevenbergMarquardt()),
    "kfac": Kfac,
}


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))


def batch(samples=32):
    x = torch.randn(samples, 6, generator=torch.Generator().manual_seed(1))
    return x, x[:, :3].argmax(1)


def losses(optimizer, x, y, steps=8):
    return [float(optimizer.step(x, y).loss) for _ in range(steps)]


def theta(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])
