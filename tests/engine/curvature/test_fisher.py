"""Empirical Fisher products against outer products of per-sample gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.fisher import EmpiricalFisher
from mlhf.curvature.losses import autograd_loss
from tests.engine.curvature.cases import (
    D,
    Heads,
    assert_close,
    case,
    flat,
    split,
)


def _dense(model, loss, x, y):
    """(1/N) Σ gᵢgᵢᵀ, each gᵢ from a forward pass of sample i alone."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    gradients = []
    for i in range(len(x)):
        value = loss(model(x[i : i + 1]), y[i : i + 1])
        gradients.append(
            flat(torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True))
        )
    g = torch.stack(gradients)
    return g.T @ g / len(x), g.mean(0)


@pytest.mark.parametrize(
    "name",
    [
        "mlp",
        "conv",
        "batch_norm_eval",
        "group_norm",
        "lstm_eval",
        "tied",
        "encoder_eval",
        "shared",
        "padding",
        "padding_negative",
    ],
)
def test_products_are_those_of_per_sample_gradients(name):
    model, x, y = case(name)
    torch._C._set_mkldnn_enabled(False)
    matrix, gradient = _dense(model, autograd_loss("cross_entropy"), x, y)
    torch._C._set_mkldnn_enabled(True)
    fisher = EmpiricalFisher(model, "cross_entropy", x, y)
    v, u = torch.randn(len(gradient), dtype=D), torch.randn(len(gradient), dtype=D)
    assert_close(flat(fisher.gradient), gradient)
    assert_close(flat(fisher.product(split(v, model))), matrix @ v)
    assert_close(fisher.quadratic(split(v, model)), v @ matrix @ v)
    assert_close(u @ flat(fisher.product(split(v, model))), u @ matrix @ v)


@pytest.mark.parametrize("loss", ["mse", "binary_cross_entropy", F.l1_loss])
def test_other_losses(loss):
    torch.manual_seed(0)
    model, x = nn.Linear(4, 2).to(D), torch.randn(5, 4, dtype=D)
    y = torch.rand(5, 2, dtype=D)
    matrix, _ = _dense(model, autograd_loss(loss), x, y)
    v = torch.randn(len(matrix), dtype=D)
    fisher = EmpiricalFisher(model, loss, x, y)
    assert_close(flat(fisher.product(split(v, model))), matrix @ v)


def test_several_outputs():
    torch.manual_seed(0)
    model, x, y = Heads("tuple").to(D), torch.randn(5, 6, dtype=D), torch.randint(0, 3, (5,))
    loss = lambda z, y: F.cross_entropy(z[0], y) + z[1].square().sum(1).mean()  # noqa: E731
    matrix, _ = _dense(model, loss, x, y)
    v = torch.randn(len(matrix), dtype=D)
    fisher = EmpiricalFisher(model, loss, x, y)
    assert_close(flat(fisher.product(split(v, model))), matrix @ v)


def test_outputs_that_are_not_one_row_a_sample_are_refused():
    model, x = Heads("nested"), torch.randn(5, 6)
    fisher = EmpiricalFisher(model, lambda z, y: z[0].sum() + z[1][1]["scale"].sum(), x, None)
    with pytest.raises(CurvatureError, match="equally many rows"):
        fisher.product(fisher.gradient)
