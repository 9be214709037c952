"""Backpropagation through an unroll: whose gradient of what, and what replay is told."""

import torch
from torch import nn

from mlhf.meta.bptt import TruncatedBPTT
from mlhf.meta.config import Replay
from mlhf.meta.inner_state import InnerState
from mlhf.meta.learner import UnrollResult
from mlhf.meta.replay import ExperienceReplay


class Two:
    """Two networks of a weight each, a = 2 and b = 5, and losses that depend on both."""

    def __init__(self):
        self.networks = {name: nn.Linear(1, 1, bias=False) for name in ("a", "b", "unused")}
        for value, net in zip((2.0, 5.0, 1.0), self.networks.values(), strict=True):
            nn.init.constant_(net.weight, value)

    def unroll(self, start):
        a, b, _ = (net.weight.sum() for net in self.networks.values())
        losses = {"a": a**2 * b, "b": a * b**3, "unused": a + b}
        end = InnerState(0, start.theta + 1, {}, start.steps + 4)
        return UnrollResult(
            losses, end, error=torch.tensor(7.0), stats={"damping": torch.tensor(3.0)}
        )


def test_each_network_gets_the_gradient_of_its_own_loss():
    replay = ExperienceReplay(
        Replay(keep=0.0, fresh=0.0), lambda _: InnerState(0, torch.zeros(1), {}, 40), 0
    )
    learner = Two()
    found = TruncatedBPTT(replay).estimate(learner, learner.unroll)
    gradients = {name: [float(g) for g in gs] for name, gs in found.gradients.items()}
    assert gradients == {"a": [2 * 2 * 5], "b": [3 * 2 * 5**2], "unused": [0.0]}
    assert {name: float(loss) for name, loss in found.losses.items()} == {
        "a": 20.0,
        "b": 250.0,
        "unused": 7.0,
    }
    assert not any(loss.requires_grad for loss in found.losses.values())
    assert {name: float(v) for name, v in found.stats.items()} == {"damping": 3.0, "depth": 40.0}
    assert found.steps == 4
    # Where it ended is stored with its error, beside the fresh start.
    assert [(e.state.steps, e.error) for e in replay._stored] == [(40, 0.0), (44, 7.0)]
