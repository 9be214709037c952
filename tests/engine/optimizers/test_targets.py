"""Targets and losses that a step cannot take are refused by name."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import EmpiricalFisher, HessianFree
from mlhf.curvature.errors import CurvatureError
from tests.engine.optimizers.loops import OPTIMIZERS, batch, losses, network

every = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS.keys())


def _lengths(y):
    return torch.full((len(y),), y.shape[1])


def _ctc(z, y):
    return F.ctc_loss(z, y, torch.full((4,), 10), torch.full((4,), 3))


@pytest.mark.parametrize("name", ["mlhf", "paper", "hf", "hf_lm"])
def test_ctc_is_refused_by_name(name):
    model = nn.Sequential(nn.Linear(5, 7), nn.LogSoftmax(-1))
    with pytest.raises(CurvatureError, match=r"ctc_loss has no second derivative.*EmpiricalFisher"):
        OPTIMIZERS[name](model, _ctc).step(torch.randn(10, 4, 5), torch.randint(1, 7, (4, 3)))


def test_what_the_error_about_ctc_recommends_works():
    def loss(z, y):
        return F.ctc_loss(z.transpose(0, 1), y, torch.full((len(y),), 10), _lengths(y))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 7), nn.LogSoftmax(-1))
    x, y = torch.randn(4, 10, 5), torch.randint(1, 7, (4, 3))
    optimizer = HessianFree(model, loss, curvature=EmpiricalFisher)
    found = losses(optimizer, x, y)
    assert found[-1] < found[0]
    optimizer = HessianFree(model, _ctc, curvature=EmpiricalFisher)
    with pytest.raises(CurvatureError, match="the loss fails on a part of the batch"):
        optimizer.step(x.transpose(0, 1), y)


@every
@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_class_out_of_range_is_named(make, wrong):
    x, y = batch()
    y[5] = wrong
    with pytest.raises(CurvatureError, match=rf"labels from .*{wrong}.*, 0 to 2"):
        make(network()).step(x, y)


@every
def test_a_target_is_never_broadcast(make):
    model = nn.Linear(6, 1)
    x, _ = batch()
    with pytest.raises(CurvatureError, match="shaped like the output"):
        make(model, "mse").step(x, x[:, 0])


@pytest.mark.parametrize("name", ["mlhf", "paper", "hf", "hf_lm"])
def test_a_module_that_returns_its_loss_is_refused_by_name(name):
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, xy):
            return F.cross_entropy(self.inner(xy[0]), xy[1])

    with pytest.raises(CurvatureError, match="the model returns a single number"):
        OPTIMIZERS[name](Net(), lambda z, y: z).step(batch(), None)
