"""L2L's closed form, its gradient, and the optimizer against the unroll."""

import math

import pytest
import torch
from torch import nn

from mlhf.meta.config import MetaTrainConfig
from mlhf.meta.l2l_learner import L2LLearner
from mlhf.meta.task_models import TaskModels
from mlhf.meta.trainer import MetaTrainer
from mlhf.optimizers.l2l import (
    L2L,
    LSTMUpdate,
    preprocess,
)
from mlhf.optimizers.learned.meta_checkpoint import MetaCheckpoint
from mlhf.training.attempt import Attempt
from tests.engine.meta.conftest import Plain, SquareTask

FAMILY = {"model": {"name": "mlp"}, "dataset": {"name": "digits"}}


class LinearUpdate:
    """m = w·g + c, without state: the smallest update rule."""

    def __init__(self):
        self.weights = nn.Linear(1, 1)
        nn.init.zeros_(self.weights.weight)
        nn.init.zeros_(self.weights.bias)

    def initial_state(self, like):
        return like.new_zeros(0, like.numel())

    def __call__(self, g, state):
        return self.weights(g.unsqueeze(1)).squeeze(1), state


def test_closed_form(monkeypatch):
    """f = x², x₀ = 1, a linear update at 0: one Adam step makes both its weights −0.01, and
    then x ← 0.98x − 0.01 five times."""
    config = MetaTrainConfig.model_validate(
        {
            "optimizer": "l2l",
            "tasks": [FAMILY],
            "unroll": 5,
            "lr": 0.01,
            "weight_decay": 0.0,
            "clip": 0.0,
            "iterations": 2,
            "decay_at": [],
            "replay": {"keep": 0.0, "fresh": 1.0},
        }
    )
    learner, seen = L2LLearner(LinearUpdate()), []
    unroll = learner.unroll

    def watched(*args):
        seen.append(unroll(*args))
        return seen[-1]

    monkeypatch.setattr(learner, "unroll", watched)
    trainer = MetaTrainer(config, learner, [SquareTask()], Attempt(), torch.device("cpu"))
    trainer._step()
    weights = [float(p.detach()) for p in learner.networks["update"].parameters()]
    assert weights == pytest.approx([-0.01, -0.01], abs=1e-7)
    trainer._step()
    x = float(seen[1].end.theta)
    assert x == pytest.approx(0.85588, abs=5e-6)
    assert x**2 == pytest.approx(0.732533, abs=5e-6)
    losses, value = [], 1.0
    for _ in range(5):
        value = 0.98 * value - 0.01
        losses.append(value**2)
    assert float(seen[1].losses["update"].detach()) == pytest.approx(sum(losses), rel=1e-6)


def test_gradient_stops_at_the_gradients_alone():
    """Of x ← x + w·g + c with g held fixed: dL/dw = Σ_t 2 x_t Σ_{s<t} g_s at w = c = 0."""
    learner = L2LLearner(LinearUpdate())
    models = TaskModels(SquareTask(), 0, 4)
    batch = models.task.batch(torch.Generator())
    found = learner.unroll(models, models.initialize(0), [batch] * 4, torch.Generator())
    w, c = torch.autograd.grad(
        found.losses["update"], list(learner.networks["update"].parameters())
    )
    assert float(w) == pytest.approx(2 * (2 + 4 + 6))
    assert float(c) == pytest.approx(2 * (1 + 2 + 3))


def test_gradients_enter_by_logarithm_and_sign():
    g = torch.tensor([1.0, -1e-3, 1e-6, 0.0], dtype=torch.float64)
    first, second = preprocess(g)
    expected = [0.0, math.log(1e-3) / 10, -1, -1]
    assert torch.allclose(first, torch.tensor(expected, dtype=torch.float64))
    expected = [1, -1, math.exp(10) * 1e-6, 0]
    assert torch.allclose(second, torch.tensor(expected, dtype=torch.float64))


def test_the_papers_rule_is_two_lstm_layers_of_20_units_times_a_tenth():
    rule = LSTMUpdate(seed=4)
    weights = rule.weights.double()
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in weights.parameters():
            p.copy_(torch.randn(p.shape, generator=generator) * 0.5)
    cells = torch.nn.LSTMCell(2, 20).double(), torch.nn.LSTMCell(20, 20).double()
    for cell, w, b in zip(cells, (weights.w1, weights.w2), (weights.b1, weights.b2), strict=True):
        n = cell.input_size
        cell.load_state_dict(
            {
                "weight_ih": w[0, :, :n],
                "weight_hh": w[0, :, n:],
                "bias_ih": b[0],
                "bias_hh": 0 * b[0],
            }
        )
    n = 50
    state, first, second = rule.initial_state(torch.zeros(n).double()), None, None
    with torch.no_grad():
        for _ in range(5):
            g = torch.randn(n, generator=generator).double() * torch.logspace(-7, 1, n).double()
            update, state = rule(g, state)
            first = cells[0](torch.stack(preprocess(g), 1), first)
            second = cells[1](first[0], second)
            expected = 0.1 * (second[0] @ weights.w3[0] + weights.b3[0])
            assert torch.allclose(update, expected, rtol=0, atol=1e-12)
    assert float(update.abs().max()) > 0.02


def test_the_optimizer_steps_as_the_unroll_does(monkeypatch):
    monkeypatch.setattr("mlhf.optimizers.l2l._CHUNK", 16)
    task = Plain(torch.float32)
    rule = LSTMUpdate(seed=4)
    models = TaskModels(task, 0, 1)
    generator = torch.Generator().manual_seed(3)
    batches = [task.batch(generator) for _ in range(5)]
    with torch.no_grad():
        end = L2LLearner(rule).unroll(models, models.initialize(5), batches, generator).end
    model = task.model(5)
    weights = MetaCheckpoint("l2l", {"update": dict(rule.weights.state_dict())}, {})
    optimizer = L2L(model, meta_checkpoint=weights)
    for x, y in batches[:4]:
        optimizer.step(x, y)
    models.set_parameters(0, end.theta)
    for mine, theirs in zip(model.parameters(), models.model(0).parameters(), strict=True):
        assert torch.allclose(mine, theirs, atol=1e-6)
