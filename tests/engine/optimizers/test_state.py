"""States of another network or optimizer are refused, and leave everything as it was."""

import copy

import pytest
import torch
from torch import nn

from mlhf.core.errors import DataError
from mlhf.optimizers.registry import build
from mlhf.optimizers.specs import OPTIMIZERS

EVERY = [*((name, {}) for name in OPTIMIZERS), ("mlhf", {"variant": "paper"})]


def _stepped(name, params, hidden=4, layers=1):
    torch.manual_seed(0)
    between = [module for _ in range(layers) for module in (nn.Tanh(), nn.Linear(hidden, hidden))]
    model = nn.Sequential(nn.Linear(3, hidden), *between)
    optimizer = build(name, params, model).inner
    optimizer.step(torch.ones(4, 3), torch.arange(4) % hidden)
    return model, optimizer


@pytest.mark.parametrize(("name", "params"), EVERY)
def test_what_differs_is_named(name, params):
    _, optimizer = _stepped(name, params)
    before = copy.deepcopy(optimizer.state_dict())
    torch_state = torch.optim.Adam(_stepped(name, params)[0].parameters()).state_dict()
    for state, message in [
        ({}, "it lacks .* It has nothing"),
        (torch_state, "it lacks .* It has state, param_groups|inner"),
        (None, "but a NoneType"),
        (_stepped(name, params, hidden=5)[1].state_dict(), r"0.weight has shape \(5, 3\) in it"),
        (_stepped(name, params, layers=2)[1].state_dict(), "it has 6 parameters .* has 4"),
    ]:
        with pytest.raises(DataError, match=message):
            optimizer.load_state_dict(state)
    leaves = (torch.utils._pytree.tree_leaves(s) for s in (before, optimizer.state_dict()))
    for old, new in zip(*leaves, strict=True):
        assert torch.equal(old, new) if isinstance(old, torch.Tensor) else old == new


@pytest.mark.parametrize(("name", "params"), EVERY)
def test_states_from_before_shapes_were_kept_are_read(name, params):
    _, optimizer = _stepped(name, params)
    state = optimizer.state_dict()
    del state["shapes"], state["guard"]
    _stepped(name, params)[1].load_state_dict(state)


def test_another_optimizers_state_is_refused():
    state = _stepped("kfac", {})[1].state_dict()
    with pytest.raises(DataError, match="no state of KroneckerMLHF: it lacks average"):
        _stepped("mlhf", {})[1].load_state_dict(state)
    with pytest.raises(DataError, match="no state of AdamDamping: it lacks steps"):
        _stepped("hf_adam", {})[1].load_state_dict(_stepped("hf_lm", {})[1].state_dict())


def test_a_schedules_state_is_checked_too():
    optimizer = build("adam", {}, nn.Linear(2, 2))
    with pytest.raises(DataError, match="lacks steps, inner"):
        optimizer.load_state_dict({})
