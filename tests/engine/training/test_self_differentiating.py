"""Networks that differentiate themselves in their forward pass, in training and evaluation."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import HessianFree
from mlhf.optimizers.levenberg_marquardt import LevenbergMarquardt
from mlhf.optimizers.registry import build
from mlhf.training.averaging import averaged
from mlhf.training.evaluation import evaluate


class _Net(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.network = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1))
        self.norm = nn.BatchNorm1d(1)

    def forward(self, x):
        x = x.detach().requires_grad_()
        u = self.network(x)
        return self.norm(torch.autograd.grad(u.sum(), x, create_graph=True)[0] + u)


class _Data:
    x = torch.linspace(-1, 1, 32)[:, None]
    y = torch.sin(3 * x)

    def size(self, split):
        return len(self.x)

    def batch(self, split, indices, device="cpu"):
        return self.x[indices], self.y[indices]


def test_levenberg_marquardt_measures_their_loss():
    model, data = _Net().eval(), _Data()
    optimizer = HessianFree(model, F.mse_loss, LevenbergMarquardt())
    for _ in range(5):
        result = optimizer.step(data.x, data.y)
    assert torch.isfinite(result.stats["reduction_ratio"])


@pytest.mark.parametrize("name", ["adam", "mlhf"])
def test_they_are_averaged_and_evaluated(name):
    model, data = _Net(), _Data()
    optimizer = build(name, {}, model, "mse")
    for _ in range(3):
        optimizer.step(data.x, data.y)
    with averaged(model, optimizer, data, torch.device("cpu"), 16):
        values = evaluate(model, data, "mse", torch.device("cpu"), batch_size=16)
        model.eval()
        expected = F.mse_loss(model(data.x), data.y).item()
        model.train()
    assert values["train_loss"] == pytest.approx(expected, rel=1e-5)
