"""Curvature in microbatches equals that of the whole batch, where it should."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.fisher import EmpiricalFisher
from mlhf.curvature.ggn import GGN
from mlhf.curvature.hessian import Hessian
from mlhf.curvature.microbatches import MicrobatchCurvature, split_batch
from tests.engine.curvature.cases import (
    D,
    Heads,
    assert_close,
    case,
    flat,
)


def _vector(model):
    return [torch.randn_like(p) for p in model.parameters()]


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("size", [1, 2, 3, 99])
@pytest.mark.parametrize("kind", [GGN, Hessian, EmpiricalFisher])
def test_micro_batches_are_the_whole_batch(kind, size, keep):
    model, x, y = case("mlp")  # 5 samples: microbatches of 2 and of 3 are uneven
    whole = kind(model, "cross_entropy", x, y)
    micro = MicrobatchCurvature(model, "cross_entropy", x, y, size=size, keep=keep, curvature=kind)
    v = _vector(model)
    assert_close(micro.loss, whole.loss)
    assert_close(flat(micro.gradient), flat(whole.gradient))
    assert_close(flat(micro.product(v)), flat(whole.product(v)))
    assert_close(micro.quadratic(v), whole.quadratic(v))


@pytest.mark.parametrize("name", ["conv", "lstm_eval", "encoder_no_dropout", "batch_norm_eval"])
def test_micro_batches_of_other_models(name):
    model, x, y = case(name)
    whole = GGN(model, "cross_entropy", x, y)
    micro = MicrobatchCurvature(model, "cross_entropy", x, y, size=2, keep=False)
    v = _vector(model)
    assert_close(flat(micro.gradient), flat(whole.gradient))
    assert_close(flat(micro.product(v)), flat(whole.product(v)))


@pytest.mark.parametrize("size", [None, 2])
@pytest.mark.parametrize("keep", [True, False])
def test_a_sub_batch_gives_the_matrix_and_the_whole_batch_the_gradient(size, keep):
    model, x, y = case("mlp")
    whole = GGN(model, "cross_entropy", x, y)
    first = GGN(model, "cross_entropy", x[:3], y[:3])
    micro = MicrobatchCurvature(
        model, "cross_entropy", x, y, size=size, curvature_samples=3, keep=keep
    )
    v = _vector(model)
    assert_close(micro.loss, whole.loss)
    assert_close(flat(micro.gradient), flat(whole.gradient))
    assert_close(flat(micro.product(v)), flat(first.product(v)))
    assert_close(micro.quadratic(v), first.quadratic(v))


def test_structures_are_cut_too():
    torch.manual_seed(0)
    model = Heads("dict").to(D)
    x, y = torch.randn(5, 6, dtype=D), {"a": torch.randint(0, 3, (5,)), "b": torch.randn(5, 2)}

    def loss(z, y):
        return F.cross_entropy(z["classes"], y["a"]) + F.mse_loss(z["values"], y["b"])

    whole, micro = GGN(model, loss, x, y), MicrobatchCurvature(model, loss, x, y, size=2)
    v = _vector(model)
    assert_close(flat(micro.product(v)), flat(whole.product(v)))


@pytest.mark.parametrize("keep", [True, False])
@pytest.mark.parametrize("name", ["batch_norm", "batch_norm2d", "batch_norm_cumulative"])
def test_with_batch_norm_the_mean_of_the_microbatches_losses_is_what_is_differentiated(name, keep):
    model, x, y = case(name)
    other, third = copy.deepcopy(model), copy.deepcopy(model)
    n = (len(x) + 1) // 2  # torch refuses batch norm over one value
    micro = MicrobatchCurvature(model, "cross_entropy", x, y, size=n, keep=keep)
    v = _vector(model)
    product = flat(micro.product(v))
    theirs = [GGN(other, "cross_entropy", x[i : i + n], y[i : i + n]) for i in (0, n)]
    weights = [n / len(x), 1 - n / len(x)]
    expected = sum(w * flat(g.product(v)) for w, g in zip(weights, theirs, strict=True))
    assert_close(product, expected)
    assert_close(micro.loss, sum(w * g.loss for w, g in zip(weights, theirs, strict=True)))
    for i in (0, n):  # running statistics move once for each part, and not by products
        third(x[i : i + n])
    for mine, plain in zip(model.buffers(), third.buffers(), strict=True):
        assert torch.equal(mine, plain)


def test_passes_that_are_run_again_draw_the_same_masks_and_leave_the_draws_alone():
    model, x, y = case("dropout")
    torch.manual_seed(7)
    kept = MicrobatchCurvature(model, "cross_entropy", x, y, size=2)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    again = MicrobatchCurvature(model, "cross_entropy", x, y, size=2, keep=False)
    v = _vector(model)
    torch.set_rng_state(after)
    assert torch.equal(flat(again.product(v)), flat(kept.product(v)))
    assert torch.equal(torch.get_rng_state(), after)
    model.eval()  # as an evaluation in between would
    assert torch.equal(flat(again.product(v)), flat(kept.product(v)))
    assert not model.training


def test_parameters_changed_under_a_product_are_noticed():
    model, x, y = case("mlp")
    micro = MicrobatchCurvature(model, "cross_entropy", x, y, size=2, keep=False)
    with torch.no_grad():
        next(model.parameters()).add_(1)
    with pytest.raises(CurvatureError, match="were changed"):
        micro.product(micro.gradient)


def test_how_a_batch_is_cut():
    cut = [(p.start, p.stop) for p in split_batch(10, 4, 6)]
    assert cut == [(0, 4), (4, 6), (6, 10)]
    assert [p.weight for p in split_batch(10, 4, 6)] == pytest.approx([0.4, 0.2, 0.4])
    assert [p.curvature_weight for p in split_batch(10, 4, 6)] == pytest.approx([4 / 6, 2 / 6, 0])
    assert [p.curvature_weight for p in split_batch(10, 5, None)] == [0.5, 0.5]
    assert [p.curvature_weight for p in split_batch(10, 5, 99)] == [0.5, 0.5]
    with pytest.raises(ValueError, match="micro-batch"):
        split_batch(10, 0, None)
    with pytest.raises(ValueError, match="curvature"):
        split_batch(10, None, 0)


class _Measured(nn.Module):
    """A layer that remembers the most graphs that were alive at once."""

    def __init__(self):
        super().__init__()
        self.linear, self.alive, self.most = nn.Linear(3, 2), 0, 0

    def forward(self, x):
        return _Alive.apply(self.linear(x), self)


class _Alive(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, owner):
        owner.alive += 1
        owner.most = max(owner.most, owner.alive)
        ctx.token = _Token(owner)
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g * 1, None


class _Token:
    def __init__(self, owner):
        self.owner = owner

    def __del__(self):
        self.owner.alive -= 1


@pytest.mark.parametrize(("keep", "most"), [(False, 1), (True, 4)])
def test_one_graph_at_a_time_is_alive_unless_they_are_kept(keep, most):
    model = _Measured()
    micro = MicrobatchCurvature(
        model, "cross_entropy", torch.randn(8, 3), torch.zeros(8, dtype=int), size=2, keep=keep
    )
    micro.product(micro.gradient)
    micro.quadratic(micro.gradient)
    assert model.most == most
