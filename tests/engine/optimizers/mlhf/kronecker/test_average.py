"""The running average against its formula, and what goes into the model and back."""

import pytest
import torch
from torch import nn

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker.average import RunningAverage


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_it_is_that_of_its_formula(fraction):
    generator = torch.Generator().manual_seed(0)
    p = torch.zeros(3, dtype=torch.float64)
    average = RunningAverage([p], fraction)
    mean = None
    for k in range(1, 30):
        p.copy_(torch.randn(3, generator=generator, dtype=torch.float64))
        average.add(k)
        mean = p.clone() if mean is None else mean + (p - mean) / (1 + fraction * k)
    here = p.clone()
    average.swap_in()
    torch.testing.assert_close(p, mean)
    if not fraction:
        assert torch.equal(p, here)
    average.swap_out()
    assert torch.equal(p, here)


def test_with_all_steps_it_is_nearly_their_mean():
    """For p = 1 the weights are those of a mean in which later steps count a little more."""
    p = torch.zeros(1, dtype=torch.float64)
    average = RunningAverage([p], 1.0)
    for k in range(1, 1001):
        p.fill_(float(k))
        average.add(k)
    average.swap_in()
    assert float(p) == pytest.approx(500, rel=0.01)


@pytest.mark.parametrize("fraction", [-0.1, 1.5])
def test_a_fraction_is_from_nought_to_one(fraction):
    with pytest.raises(ValueError, match="from 0 to 1"):
        RunningAverage([torch.zeros(1)], fraction)


def _run(model, steps, look):
    generator = torch.Generator().manual_seed(2)
    optimizer = MLHF(model, meta_checkpoint=None)
    for _ in range(steps):
        x = torch.randn(40, 5, generator=generator)
        y = torch.randint(0, 3, (40,), generator=generator)
        optimizer.step(x, y)
        if look:
            optimizer.eval_mode()
            optimizer.eval_mode()  # may be repeated
            optimizer.train_mode()
            optimizer.train_mode()
    return optimizer


def test_looking_changes_no_bit_of_a_run():
    ends = []
    for look in (False, True):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
        optimizer = _run(model, 12, look)
        here = [p.detach().clone() for p in model.parameters()]
        optimizer.eval_mode()
        ends.append([*here, *(p.detach().clone() for p in model.parameters())])
    assert all(torch.equal(a, b) for a, b in zip(*ends, strict=True))
    half = len(ends[0]) // 2
    assert not any(torch.equal(a, b) for a, b in zip(ends[0][:half], ends[0][half:], strict=True))


def test_it_goes_on_from_its_state():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    optimizer = _run(model, 6, look=False)
    other = nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))
    other.load_state_dict({k: v.clone() for k, v in model.state_dict().items()})
    restored = MLHF(other, meta_checkpoint=None)
    restored.load_state_dict(optimizer.state_dict())
    for each in (optimizer, restored):
        each.eval_mode()
    for a, b in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(a, b)
