"""Entries without a gradient: when there is a mask, and what is in it."""

import io

import torch
from torch import nn

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker.dead_entries import DeadEntries


def _gradient(*dead):
    result = torch.ones(3, 4)
    for place in dead:
        result[place] = 0
    return result


def test_rows_and_columns_need_no_mask_and_single_entries_do():
    entries = DeadEntries()
    entries.update(_gradient((1,), (slice(None), 2)))
    assert entries.mask is None
    entries.update(_gradient((1,), (0, 3)))  # column 2 has one now, and (0, 3) had one before
    assert entries.mask is None
    other = DeadEntries()
    other.update(_gradient((1,), (0, 3)))
    assert torch.equal(other.mask, _gradient((1,), (0, 3)))
    other.see(_gradient((1,), (2, 2)))
    assert torch.equal(other.mask, _gradient((1,)))
    other.update(torch.zeros(3, 4))  # what is left are whole rows
    assert other.mask is None


def test_once_all_have_had_a_gradient_nothing_is_kept():
    entries = DeadEntries()
    entries.update(_gradient((0, 0)))
    assert entries.mask is not None
    entries.update(torch.ones(3, 4))
    entries.update(torch.zeros(3, 4))
    assert entries.mask is None
    assert entries.state_dict() == {"alive": None, "all_alive": True, "mask": None}


class _Masked(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.weight = nn.Parameter(torch.randn(6, 3) * 0.1)
        self.register_buffer("mask", (torch.arange(6)[:, None] % 3 != torch.arange(3)).float())

    def forward(self, x):
        return x @ (self.weight * self.mask)


def test_a_run_goes_on_bit_for_bit_from_its_state():
    model, other = _Masked(), _Masked()
    optimizer, restored = MLHF(model), MLHF(other)
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randn(8, 6, generator=generator) for _ in range(40)]
    for k, x in enumerate(batches):
        if k == 20:
            buffer = io.BytesIO()
            torch.save(optimizer.state_dict(), buffer)
            buffer.seek(0)
            restored.load_state_dict(torch.load(buffer, weights_only=True))
            other.load_state_dict(model.state_dict())
        if k >= 20:
            restored.step(x, x[:, :3].argmax(1))
        optimizer.step(x, x[:, :3].argmax(1))
    assert torch.equal(model.weight, other.weight)
    assert torch.equal(model.weight[model.mask == 0], _Masked().weight[model.mask == 0])


def test_what_is_known_of_the_other_rows_stays_where_few_rows_have_a_gradient():
    generator = torch.Generator().manual_seed(0)
    entries, whole = DeadEntries(), DeadEntries()
    for _ in range(12):
        live = torch.randperm(9, generator=generator)[:2]
        gradient = torch.zeros(9, 5)
        gradient[live] = (torch.rand(2, 5, generator=generator) < 0.3).float()
        entries.update(gradient, live)
        whole.update(gradient)
        assert (entries.mask is None) == (whole.mask is None)
        assert whole.mask is None or torch.equal(entries.mask, whole.mask)
    saved = entries.state_dict()
    other = DeadEntries()
    other.load_state_dict(saved, torch.zeros(1))
    last = torch.zeros(9, 5)
    last[3] = 1
    for each in (entries, other):
        each.update(last, torch.tensor([3]))
    assert (entries.mask is None) == (other.mask is None)
    assert entries.mask is None or torch.equal(entries.mask, other.mask)
