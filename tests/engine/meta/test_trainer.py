"""Adam's step on given meta-gradients: each network's cut, the rate's cuts, L2."""

import pytest
import torch
from torch import nn

from mlhf.meta.config import MetaTrainConfig
from mlhf.meta.estimators import MetaGradient
from mlhf.meta.trainer import MetaTrainer
from mlhf.training.attempt import Attempt
from tests.engine.meta.conftest import Plain

FAMILY = {"model": {"name": "mlp"}, "dataset": {"name": "digits"}}


class Nets:
    """Two networks of known weights, of norm 13 and 5."""

    keeps_graphs = False

    def __init__(self):
        self.networks = {"damping": nn.Linear(2, 1), "preconditioner": nn.Linear(1, 1)}
        _put(self.networks["damping"], [[3.0, -4.0]], [12.0])
        _put(self.networks["preconditioner"], [[-3.0]], [4.0])


class Known:
    """An estimator that always says the same."""

    def __init__(self, **gradients):
        gradients = {name: [torch.tensor(g) for g in gs] for name, gs in gradients.items()}
        losses = {name: torch.tensor(1.0) for name in gradients}
        self._found = MetaGradient(gradients, losses, {}, steps=10)

    def estimate(self, learner, unroll):
        return self._found


GRADIENTS = {"damping": [[[30.0, 0.0]], [-40.0]], "preconditioner": [[[0.3]], [0.4]]}


def _put(net, weight, bias):
    with torch.no_grad():
        net.weight.copy_(torch.tensor(weight))
        net.bias.copy_(torch.tensor(bias))


def _trainer(gradients=GRADIENTS, tasks=1, **changes):
    config = MetaTrainConfig.model_validate(
        {"variant": "paper", "tasks": [FAMILY], "iterations": 100, **changes}
    )
    plain = [Plain(torch.float32) for _ in range(tasks)]
    trainer = MetaTrainer(config, Nets(), plain, Attempt(), torch.device("cpu"))
    trainer.outer_optimizer.estimator = Known(**gradients)
    return trainer


def _weights(trainer):
    return [p.detach() for net in trainer.learner.networks.values() for p in net.parameters()]


def _gradient(trainer, name):
    return torch.cat([p.grad.reshape(-1) for p in trainer.learner.networks[name].parameters()])


@pytest.mark.parametrize(("clip", "norm"), [(1.0, 13.0), (0.5, 6.5), (0.0, 50.0)])
def test_each_networks_gradient_is_cut_to_its_own_weights_norm(clip, norm):
    trainer = _trainer(clip=clip)
    trainer._step()
    cut = torch.tensor([30.0, 0.0, -40.0]) * norm / 50
    assert torch.allclose(_gradient(trainer, "damping"), cut)
    # The other's, of norm 0.5, is below its weights' norm, 5.
    assert torch.equal(_gradient(trainer, "preconditioner"), torch.tensor([0.3, 0.4]))


def test_the_rate_is_cut_to_a_tenth_three_times():
    trainer, rates = _trainer(), {}
    for iteration in (0, 59, 60, 75, 76, 87, 88, 99):
        trainer.step = iteration
        trainer._step()
        rates[iteration] = trainer.outer_optimizer.adam.param_groups[0]["lr"]
    expected = {0: 1e-3, 59: 1e-3, 60: 1e-4, 75: 1e-4, 76: 1e-5, 87: 1e-5, 88: 1e-6, 99: 1e-6}
    assert rates == pytest.approx(expected)


def test_two_steps_are_adams_with_l2_by_hand():
    lr, decay = 0.1, 0.2
    trainer, expected = _trainer(lr=lr, weight_decay=decay, clip=0.0), []
    for name, net in trainer.learner.networks.items():
        for w, gradient in zip(net.parameters(), GRADIENTS[name], strict=True):
            g0, value = torch.tensor(gradient).double(), w.detach().double()
            m = v = torch.zeros_like(value)
            for t in (1, 2):
                g = g0 + decay * value
                m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g**2
                value = value - lr * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)).sqrt() + 1e-8)
            expected.append(value)
    for _ in range(2):
        trainer._step()
    for w, value in zip(_weights(trainer), expected, strict=True):
        assert torch.allclose(w.double(), value, rtol=0, atol=1e-6)


def test_a_gradient_that_is_not_finite_moves_nothing():
    trainer = _trainer({**GRADIENTS, "preconditioner": [[[float("nan")]], [0.4]]})
    before = [w.clone() for w in _weights(trainer)]
    trainer._step()
    assert all(torch.equal(a, b) for a, b in zip(before, _weights(trainer), strict=True))
    assert (trainer.step, trainer.inner_steps, trainer._bad) == (1, 10, 1)


def test_fresh_starts_reach_every_task():
    trainer = _trainer(tasks=3, replay={"keep": 0.0, "fresh": 1.0})
    points = [trainer.replay.next() for _ in range(30)]
    assert {p.task for p in points} == {0, 1, 2}
    assert len({float(p.theta[0]) for p in points}) == 30
