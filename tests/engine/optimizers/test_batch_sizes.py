"""A batch's size is counted from the rows of the output, or told."""

import pytest
import torch
from torch import nn
from torch.nn.utils.rnn import pack_sequence

from mlhf import MLHF
from tests.engine.optimizers.loops import batch, network, theta


def _first_batch_large(large):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(20, 16), nn.ReLU(), nn.Linear(16, 4))
    optimizer = MLHF(model)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randn(20, 4, generator=torch.Generator().manual_seed(2))
    found = []
    for k in range(60):
        x = torch.randn(1000 if large and not k else 50, 20, generator=generator)
        found.append(float(optimizer.step(x, (x @ labels).argmax(1)).loss))
    return sum(found[-10:]) / 10


def test_a_large_first_batch_costs_nothing():
    assert _first_batch_large(True) < 1.15 * _first_batch_large(False)


class _TimeMajor(nn.Module):
    def __init__(self, packed=False):
        super().__init__()
        torch.manual_seed(0)
        self.memory, self.out = nn.GRU(6, 8), nn.Linear(8, 3)
        self._packed = packed

    def forward(self, x):
        hidden = self.memory(x)[0]
        return self.out(hidden.data if self._packed else hidden)


def _moved(model, optimizer, x, y, **options):
    before = theta(model)
    optimizer.step(x, y, **options)
    return float((theta(model) - before).norm())


@pytest.mark.parametrize("kind", ["dict", "time-major", "packed"])
def test_a_batch_of_one_sample_moves_little_whatever_its_inputs_are(kind):
    """Its size is counted from the rows of the output, not from the first axis of the input."""

    def make_batch(n):
        if kind == "dict":
            x, y = batch(n)
            return {"x": x}, y
        if kind == "time-major":
            return torch.randn(7, n, 6), torch.randint(3, (7, n))
        lengths = [7] * n
        return pack_sequence([torch.randn(k, 6) for k in lengths]), torch.randint(
            3, (sum(lengths),)
        )

    class Dict(nn.Module):
        def __init__(self):
            super().__init__()
            self.inner = network()

        def forward(self, inputs):
            return self.inner(inputs["x"])

    moved = {}
    for last in (64, 1):
        model = Dict() if kind == "dict" else _TimeMajor(kind == "packed")
        optimizer = MLHF(model)
        torch.manual_seed(1)
        for _ in range(4):
            optimizer.step(*make_batch(64))
        assert optimizer._basis._squares.count == 4
        moved[last] = _moved(model, optimizer, *make_batch(last))
    assert moved[1] < 0.2 * moved[64]


def test_a_batchs_size_can_be_told():
    """Of padded rows, say, of which the loss leaves most out."""
    moved = {}
    for told in (None, 64, 2):
        model = network()
        optimizer = MLHF(model)
        for _ in range(4):
            optimizer.step(*batch(64), batch_size=64)
        moved[told] = _moved(model, optimizer, *batch(64), batch_size=told)
    assert moved[None] == moved[64]
    assert moved[2] < 0.1 * moved[64]
    with pytest.raises(ValueError, match="batch_size=0"):
        optimizer.step(*batch(), batch_size=0)
