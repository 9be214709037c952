"""Hessian products against dense Hessians."""

import copy

import pytest
import torch
from torch import nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.hessian import Hessian
from mlhf.curvature.losses import autograd_loss
from tests.engine.curvature.cases import (
    FIRST,
    Custom,
    D,
    Sine,
    SineCut,
    SineOnce,
    assert_close,
    case,
    flat,
    split,
)

NAMES = (
    *("mlp", "Sigmoid", "GELU", "SiLU", "softmax", "batch_norm", "layer_norm", "dropout", "shared"),
    *("residual", "in_place", "conv", "groups", "transposed1d", "max_pool", "lp_pool"),
    *("adaptive_max", "batch_norm_eval", "group_norm", "dropout2d", "conv1d", "lstm", "gru"),
    *("rnn", "padding", "tied", "attention", "attention_dropout", "encoder"),
    *("encoder_eval", "encoder_eval_frozen_body"),
)


def _dense(model, x, y):
    """Row by row, from a plain forward pass; draws and buffers are as before afterwards."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    buffers = copy.deepcopy(dict(model.named_buffers()))
    random = torch.get_rng_state()
    on = torch._C._get_mkldnn_enabled()
    torch._C._set_mkldnn_enabled(False)
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
        loss = autograd_loss("cross_entropy")(model(x), y)
    torch._C._set_mkldnn_enabled(on)
    torch.set_rng_state(random)
    settings = {"allow_unused": True, "materialize_grads": True}
    gradient = flat(torch.autograd.grad(loss, parameters, create_graph=True, **settings))
    rows = [
        flat(torch.autograd.grad(g, parameters, retain_graph=True, **settings)) for g in gradient
    ]
    with torch.no_grad():
        for name, b in model.named_buffers():
            b.copy_(buffers[name])
    return torch.stack(rows), gradient.detach(), loss.detach()


@pytest.mark.parametrize("name", NAMES)
def test_products_equal_those_of_the_dense_hessian(name):
    model, x, y = case(name)
    matrix, gradient, loss = _dense(model, x, y)
    hessian = Hessian(model, "cross_entropy", x, y)
    assert_close(hessian.loss, loss)
    assert_close(flat(hessian.gradient), gradient)
    v = torch.randn(len(gradient), dtype=D)
    assert_close(flat(hessian.product(split(v, model))), matrix @ v)
    assert_close(hessian.quadratic(split(v, model)), v @ matrix @ v)


@pytest.mark.parametrize("name", ["mlp", "batch_norm", "GELU", "lstm", "encoder_no_dropout"])
def test_products_are_differences_of_gradients(name):
    """By no second derivative at all: (∇ℓ(θ + hv) − ∇ℓ(θ − hv)) / 2h."""
    model, x, y = case(name)
    v = [torch.randn_like(p) for p in model.parameters()]
    product = flat(Hessian(model, "cross_entropy", x, y).product(v))
    step, sides = 1e-5, []
    for sign in (1, -1):
        moved = copy.deepcopy(model)
        with torch.no_grad():
            for p, t in zip(moved.parameters(), v, strict=True):
                p.add_(t, alpha=sign * step)
        loss = autograd_loss("cross_entropy")(moved(x), y)
        sides.append(flat(torch.autograd.grad(loss, list(moved.parameters()))))
    expected = (sides[0] - sides[1]) / (2 * step)
    assert (product - expected).abs().max() < 1e-7 * expected.abs().max()


def test_a_model_linear_in_its_parameters_has_no_curvature_under_a_linear_loss():
    model = nn.Linear(3, 2).to(D)
    hessian = Hessian(model, lambda z, y: z.sum(), torch.randn(4, 3, dtype=D), None)
    assert not any(t.any() for t in hessian.product(hessian.gradient))


def test_custom_functions_are_refused_unless_vouched_for():
    torch.manual_seed(0)
    x, y = torch.randn(5, 6, dtype=D), torch.randint(0, 3, (5,))
    for function in (Sine, SineCut, SineOnce):
        with pytest.raises(CurvatureError, match="custom_functions=True"):
            Hessian(Custom(function).to(D), "cross_entropy", x, y)
    model = Custom(Sine).to(D)
    matrix, _, _ = _dense(model, x, y)
    hessian = Hessian(model, "cross_entropy", x, y, custom_functions=True)
    v = torch.randn(len(matrix), dtype=D)
    assert_close(flat(hessian.product(split(v, model))), matrix @ v)


@pytest.mark.parametrize("first", FIRST)
@pytest.mark.parametrize(
    ("function", "why"), [(SineOnce, "no second derivative"), (SineCut, "not symmetric")]
)
def test_a_vouched_for_function_is_checked_whatever_comes_first(function, why, first):
    torch.manual_seed(0)
    x, y = torch.randn(5, 6, dtype=D), torch.randint(0, 3, (5,))
    model = Custom(function).to(D)
    hessian = Hessian(model, "cross_entropy", x, y, custom_functions=True)
    before = torch.get_rng_state()
    for _ in range(2):  # the second time as well
        with pytest.raises(CurvatureError, match=why):
            hessian.product(FIRST[first](model))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", ["bag_mean", "Hardsigmoid"])
def test_what_torch_cannot_differentiate_twice_says_so(name):
    model, x, y = case(name)
    v = [torch.ones_like(p) for p in model.parameters()]
    with pytest.raises(CurvatureError, match="no second derivative"):
        Hessian(model, "cross_entropy", x, y).product(v)


def test_what_torch_differentiates_wrongly_is_refused():
    model, x, y = case("weight_norm")
    with pytest.raises(CurvatureError, match="second derivative of weight_norm is wrong"):
        Hessian(model, "cross_entropy", x, y)


def test_a_target_that_does_not_fit_is_refused():
    with pytest.raises(CurvatureError, match="shaped like"):
        Hessian(nn.Linear(3, 2), "mse", torch.randn(2, 3), torch.randn(2, 1))
