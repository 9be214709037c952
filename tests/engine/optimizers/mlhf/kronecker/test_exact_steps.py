"""Where every step has all samples and the loss is a square, steps are solved for exactly."""

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker import exact_steps, repeated_batch


def _data(count=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, 3, generator=generator, dtype=torch.float64)
    return x, torch.sin(3 * x[:, :1]) * x[:, 1:2] + x[:, 2:] ** 2


def _model(*more):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 20), nn.Tanh(), *more, nn.Linear(20, 1)).double()


def _is_exact(result):
    return "step_length" in result.stats


def test_a_smooth_function_is_learned_far_closer_than_without(monkeypatch):
    x, y = _data()
    ends = {}
    for name, first in (("with", 10), ("without", 10**9)):
        monkeypatch.setattr(exact_steps, "_FIRST", first)
        optimizer = MLHF(_model(), "mse")
        results = [optimizer.step(x, y) for _ in range(80)]
        assert [_is_exact(r) for r in results] == [k >= first for k in range(80)]
        ends[name] = float(results[-1].loss)
    assert ends["with"] < 1e-3 * ends["without"]


def test_the_order_of_the_samples_is_no_matter():
    """Of standardized data, whose sums are rounding, too."""
    x, y = _data()
    x, y = (x - x.mean(0)) / x.std(0), (y - y.mean()) / y.std()
    optimizer = MLHF(_model(), "mse")
    for k in range(15):
        order = torch.randperm(len(x))
        assert _is_exact(optimizer.step(x[order], y[order])) == (k >= 10)


@pytest.mark.parametrize("first", [0, 2, 12])
def test_another_batch_ends_it_for_good(first):
    """Samples in another pairing, too."""
    x, y = _data()
    other = y[torch.randperm(len(y))]
    optimizer = MLHF(_model(), "mse")
    for k in range(20):
        exact = _is_exact(optimizer.step(x, other if k == first else y))
        assert exact == (10 <= k < first)


@pytest.mark.parametrize(
    ("loss", "model", "exact"),
    [
        ("mse", _model(), True),
        (lambda z, y: (z - y).square().sum() + z.mean(), _model(), True),
        (lambda z, y: F.huber_loss(z, y, delta=100.0), _model(), True),
        (lambda z, y: F.huber_loss(z, y, delta=0.1), _model(), False),
        (lambda z, y: F.poisson_nll_loss(z, y.abs()), _model(), False),
        ("mse", _model(nn.Dropout(0.1)), False),
        ("mse", _model(nn.BatchNorm1d(20)), False),
    ],
)
def test_it_needs_a_square_and_a_model_without_draws(loss, model, exact):
    x, y = _data()
    optimizer = MLHF(model, loss)
    found = [_is_exact(optimizer.step(x, y)) for _ in range(14)]
    assert found == [exact and k >= 10 for k in range(14)]


def test_nothing_is_exact_under_autocast_or_where_groups_differ():
    x, y = (t.float() for t in _data())
    model = _model().float()
    groups = [{"params": [p], "lr": 1 - 0.1 * i} for i, p in enumerate(model.parameters())]
    for options in ({"autocast": torch.bfloat16}, {"parameters": groups}):
        optimizer = (
            MLHF(copy.deepcopy(model), "mse", **options)
            if "autocast" in options
            else (MLHF(model, "mse", **options))
        )
        assert not any(_is_exact(optimizer.step(x, y)) for _ in range(14))
        assert optimizer._exact._repeated.over


def test_what_would_take_long_is_left_alone(monkeypatch):
    x, y = _data()
    monkeypatch.setattr(exact_steps, "_FLOPS", 60 * 101 * 60 - 1)
    optimizer = MLHF(_model(), "mse")
    assert not any(_is_exact(optimizer.step(x, y)) for _ in range(14))
    monkeypatch.setattr(exact_steps, "_FLOPS", 60 * 101 * 60)
    optimizer = MLHF(_model(), "mse")
    assert _is_exact([optimizer.step(x, y) for _ in range(14)][-1])


def test_where_exact_steps_stall_others_go_on(monkeypatch):
    """At a kink of a network, say."""
    x, y = _data()
    monkeypatch.setattr(repeated_batch, "_STALL", 1.0)
    optimizer = MLHF(_model(), "mse")
    found = [_is_exact(optimizer.step(x, y)) for _ in range(40)]
    assert found == [10 <= k < 31 for k in range(40)]


@pytest.mark.parametrize("at", [2, 7, 25])
def test_it_goes_on_bit_for_bit_from_a_state(at):
    x, y = _data()
    whole = MLHF(_model(), "mse")
    for _ in range(40):
        whole.step(x, y)
    first = MLHF(_model(), "mse")
    for _ in range(at):
        first.step(x, y)
    buffer = io.BytesIO()
    torch.save({"model": first.model.state_dict(), "optimizer": first.state_dict()}, buffer)
    buffer.seek(0)
    saved = torch.load(buffer, weights_only=True)
    second = MLHF(_model(), "mse")
    second.model.load_state_dict(saved["model"])
    second.load_state_dict(saved["optimizer"])
    for _ in range(40 - at):
        second.step(x, y)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_run_that_began_without_it_goes_on_without_it():
    x, y = _data()
    optimizer = MLHF(_model(), "mse")
    for _ in range(5):
        optimizer.step(x, y)
    state = copy.deepcopy(optimizer.state_dict())
    del state["repeated"]
    optimizer.load_state_dict(state)
    assert not any(_is_exact(optimizer.step(x, y)) for _ in range(20))
