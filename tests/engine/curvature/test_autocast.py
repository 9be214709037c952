"""Forward passes in bfloat16, with parameters, gradients and products in float32."""

import copy

import pytest
import torch
from torch import nn

from mlhf.curvature import kernels
from mlhf.curvature.fisher import EmpiricalFisher
from mlhf.curvature.forward_pass import evaluated
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hessian import Hessian
from mlhf.curvature.microbatches import MicrobatchCurvature
from tests.engine.curvature.cases import case, flat

LOW = torch.bfloat16
NAMES = (
    *("mlp", "conv", "batch_norm2d", "batch_norm_eval", "layer_norm", "group_norm", "dropout"),
    *("residual", "shared", "lstm", "tied", "encoder_no_dropout", "attention_weights"),
)


def _single(name):
    model, x, y = case(name)
    return model.float(), x.float() if x.is_floating_point() else x, y


@pytest.mark.parametrize("name", NAMES)
def test_products_are_near_those_of_float32(name):
    model, x, y = _single(name)
    other = copy.deepcopy(model)
    torch.manual_seed(0)
    low = GGN(model, "cross_entropy", x, y, autocast=LOW)
    torch.manual_seed(0)
    full = GGN(other, "cross_entropy", x, y)
    v = [torch.randn_like(p) for p in model.parameters()]
    found, expected = flat(low.product(v)), flat(full.product(v))
    assert found.dtype == torch.float32
    assert low.output.dtype == LOW
    assert low.loss.dtype == low.gradient[0].dtype == torch.float32
    assert not torch.equal(found, expected)
    assert (found - expected).norm() < 0.1 * expected.norm()
    assert (flat(low.gradient) - flat(full.gradient)).norm() < 0.1 * flat(full.gradient).norm()
    quadratic = low.quadratic(v)
    assert quadratic.dtype == torch.float32
    assert abs(quadratic - full.quadratic(v)) < 0.1 * full.quadratic(v)


@pytest.mark.parametrize("known", [True, False])
@pytest.mark.parametrize("kind", [GGN, EmpiricalFisher, Hessian, MicrobatchCurvature])
def test_an_lstm_runs_where_the_cpu_has_no_kernel_for_it(kind, known, monkeypatch):
    """Torch itself fails there; ``known``: whether we know, or ask this CPU."""
    if known:
        monkeypatch.setattr(kernels, "has_lstm", lambda dtype: False)
    model, x, y = _single("lstm")
    full = kind(model, "cross_entropy", x, y)
    v = [torch.randn_like(p) for p in model.parameters()]
    expected = flat(full.product(v))
    low = kind(model, "cross_entropy", x, y, autocast=LOW)
    with torch.autocast("cpu", dtype=LOW):
        around = kind(model, "cross_entropy", x, y)
        z = evaluated(model, x)
    for each in (low, around):
        assert (flat(each.product(v)) - expected).norm() < 0.1 * expected.norm()
    assert z.dtype == LOW


@pytest.mark.parametrize("kind", [GGN, EmpiricalFisher, Hessian, MicrobatchCurvature])
def test_a_callers_autocast_does_the_same(kind):
    model, x, y = _single("residual")
    own = kind(model, "cross_entropy", x, y, autocast=LOW)
    v = [torch.randn_like(p) for p in model.parameters()]
    expected = flat(own.product(v))
    with torch.autocast("cpu", dtype=LOW):
        around = kind(model, "cross_entropy", x, y)
        assert torch.equal(flat(around.product(v)), expected)
        assert torch.equal(flat(own.product(v)), expected)
    assert torch.equal(flat(around.product(v)), expected)
    assert torch.equal(flat(around.gradient), flat(own.gradient))


class _Mixed(nn.Module):
    """Keeps its last layer out of autocast."""

    def __init__(self):
        super().__init__()
        self.first, self.out = nn.Linear(6, 5), nn.Linear(5, 3)

    def forward(self, x):
        h = self.first(x)
        with torch.autocast("cpu", enabled=False):
            return self.out(h.float())


@pytest.mark.parametrize("kind", [GGN, Hessian])
def test_products_under_a_callers_autocast_keep_each_operations_own_type(kind):
    torch.manual_seed(0)
    model, x, y = _Mixed(), torch.randn(5, 6), torch.randint(0, 3, (5,))
    own = kind(model, "cross_entropy", x, y, autocast=LOW)
    expected = flat(own.product(own.gradient))
    with torch.autocast("cpu", dtype=LOW):
        around = kind(model, "cross_entropy", x, y)
        assert torch.equal(flat(around.product(own.gradient)), expected)


def test_the_loss_is_computed_in_float32():
    model = nn.Linear(4, 3)
    x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
    low = GGN(model, "cross_entropy", x, y, autocast=LOW)
    expected = nn.functional.cross_entropy(low.output.float(), y)
    assert torch.allclose(low.loss, expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["mlp", "conv", "attention_weights"])
def test_quadratic_forms_round_no_product_to_the_outputs_type(name):
    model, x, y = _single(name)
    ggn = GGN(model, "cross_entropy", x, y, autocast=LOW)
    for _ in range(5):
        v = [torch.randn_like(p) for p in model.parameters()]
        (u,) = ggn.jvp(v)
        (w,) = ggn.output_hessian([u])
        assert u.dtype == w.dtype == LOW
        expected = (u.double() * w.double()).sum()
        assert abs(ggn.quadratic(v) - expected) < 1e-6 * expected
