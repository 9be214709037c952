"""Persistent evolution strategies: unbiased over truncations, where truncated gradients are not."""

import pytest
import torch
from torch import nn

from mlhf.meta.config import Replay
from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import UnrollResult
from mlhf.meta.pes import GeneratorSnapshot, TruncatedPES
from mlhf.meta.replay import ExperienceReplay

DECAY, TARGET, STEPS, UNROLLS = 0.9, 2.0, 2, 4


class Quadratic:
    """s ← 0.9 s + w; the loss of an unroll is the sum of (s − 2)² over its steps."""

    def __init__(self):
        self.net = nn.Linear(1, 1, bias=False)
        with torch.no_grad():
            self.net.weight.fill_(0.3)
        self.networks = {"net": self.net}

    def unroll(self, start):
        s, loss = start.theta, torch.zeros(())
        for _ in range(STEPS):
            s = DECAY * s + self.net.weight.reshape(1)
            loss = loss + (s - TARGET).square().sum()
        end = InnerState(0, s.detach(), {}, start.steps + STEPS)
        return UnrollResult({"net": loss}, end, loss.detach(), {})


def _evolution(pairs, seed=0):
    replay = ExperienceReplay(
        Replay(keep=0.0, fresh=1.0), lambda _: InnerState(0, torch.zeros(1), {}), 0
    )
    generator = torch.Generator().manual_seed(seed)
    return TruncatedPES(
        replay,
        pairs=pairs,
        sigma=0.1,
        horizon=STEPS * UNROLLS,
        random=generator,
        snapshot=GeneratorSnapshot(),
    )


def _true_gradient():
    w = torch.tensor(0.3, requires_grad=True)
    s, loss = torch.zeros(()), torch.zeros(())
    for _ in range(STEPS * UNROLLS):
        s = DECAY * s + w
        loss = loss + (s - TARGET) ** 2
    return float(torch.autograd.grad(loss / UNROLLS, w)[0])  # per unroll


@pytest.mark.slow
def test_it_is_unbiased_on_a_quadratic():
    learner = Quadratic()
    evolution = _evolution(pairs=64)
    evolution._begun = True  # all pairs start together, so means over whole horizons are exact
    found = torch.tensor(
        [float(evolution.estimate(learner, learner.unroll).gradients["net"][0]) for _ in range(200)]
    )
    per_horizon = found.view(-1, UNROLLS).mean(1)
    error = float(per_horizon.std() / len(per_horizon) ** 0.5)
    true = _true_gradient()
    assert abs(float(per_horizon.mean()) - true) < 4 * error
    assert error < 0.05 * abs(true)
    # What backpropagation cut at each unroll would say is further off than that.
    truncated, state = 0.0, InnerState(0, torch.zeros(1), {})
    for _ in range(UNROLLS):
        result = learner.unroll(state)
        truncated += float(torch.autograd.grad(result.losses["net"], learner.net.weight)[0])
        state = result.end
    assert abs(truncated / UNROLLS - true) > 10 * error


def test_weights_are_as_before_and_the_first_ages_spread():
    learner = Quadratic()
    evolution = _evolution(pairs=4)
    before = learner.net.weight.detach().clone()
    result = evolution.estimate(learner, learner.unroll)
    assert torch.equal(learner.net.weight, before)
    assert result.steps == 2 * 4 * STEPS
    assert len({p.age for p in evolution._pairs if p is not None}) >= 3


def test_both_of_a_pair_see_the_same_random_numbers():
    generator = torch.Generator().manual_seed(0)
    seen = []

    class Noisy(Quadratic):
        def unroll(self, start):
            seen.append(float(torch.rand((), generator=generator)))
            return super().unroll(start)

    learner = Noisy()
    evolution = _evolution(pairs=3)
    evolution._snapshot = GeneratorSnapshot(generator)
    for _ in range(2):
        evolution.estimate(learner, learner.unroll)
    assert seen[0::2] == seen[1::2]
    assert len(set(seen)) == 6
