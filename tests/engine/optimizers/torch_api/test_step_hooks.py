"""Steps run the hooks of torch's optimizers, and have their name in a profile."""

import torch
from torch import nn
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)
from torch.profiler import ProfilerActivity, profile

from mlhf import MLHF


def _optimizer():
    torch.manual_seed(0)
    optimizer = MLHF(nn.Linear(3, 2))
    return optimizer, (torch.randn(4, 3), torch.tensor([0, 1, 0, 1]))


def test_hooks_run_around_a_step_and_may_change_its_arguments():
    optimizer, (x, y) = _optimizer()
    seen = []

    def before(instance, args, kwargs):
        seen.append(("before", instance is optimizer, len(args)))
        return (args[0], 2 * args[1], y), kwargs

    optimizer.register_step_pre_hook(before)
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))
    changed = optimizer.step(x, y).loss
    assert seen == [("before", True, 3), "after"]
    plain, _ = _optimizer()
    assert torch.equal(changed, plain.step(2 * x, y).loss)


def test_hooks_of_all_optimizers_run():
    optimizer, (x, y) = _optimizer()
    seen = []
    handles = [
        register_optimizer_step_pre_hook(lambda *_: seen.append("before")),
        register_optimizer_step_post_hook(lambda *_: seen.append("after")),
    ]
    try:
        optimizer.step(x, y)
    finally:
        for handle in handles:
            handle.remove()
    optimizer.step(x, y)
    assert seen == ["before", "after"]


def test_a_profile_has_the_step_by_name():
    optimizer, (x, y) = _optimizer()
    with profile(activities=[ProfilerActivity.CPU]) as found:
        optimizer.step(x, y)
    assert "Optimizer.step#KroneckerMLHF.step" in {event.key for event in found.key_averages()}
