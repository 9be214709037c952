"""Parameters whose gradient is always exactly zero stay where they are, to the last bit."""

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker import factor_basis
from mlhf.optimizers.protocol import Averaging
from mlhf.optimizers.registry import build
from mlhf.optimizers.specs import OPTIMIZERS

_PADDING, _UNUSED_INPUTS, _UNUSED_UNITS = 7, [0, 3, 4, 11, 19], [0, 5, 9]


class _Net(nn.Module):
    """Tokens 0, 1 never occur, 7 is padding; some inputs, channels and units are always 0."""

    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(30, 12, padding_idx=_PADDING)
        self.conv = nn.Conv1d(12, 14, 3)
        self.first = nn.Linear(20, 16)
        self.second = nn.Linear(16 + 14, 11)
        self.matrix = nn.Parameter(torch.randn(11, 13) * 0.1)
        self.out = nn.Linear(13, 4)
        with torch.no_grad():
            self.first.bias[_UNUSED_UNITS] = -100

    def forward(self, x):
        tokens = self.table(x[:, :6].long()) * (torch.arange(12) % 4 > 0)
        channels = torch.relu(self.conv(tokens.transpose(1, 2))).mean(2)
        units = torch.relu(self.first(x[:, 6:]))
        hidden = torch.tanh(self.second(torch.cat([units, channels], 1)))
        return self.out(torch.tanh(hidden @ self.matrix))


def _batches(count):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        tokens = torch.randint(2, 30, (32, 6), generator=generator)
        tokens[:, -1] = _PADDING
        values = torch.randn(32, 20, generator=generator)
        values[:, _UNUSED_INPUTS] = 0
        yield torch.cat([tokens, values], 1), (values.sum(1) > 0).long() + (tokens[:, 0] > 15)


def _dead_entries(model):
    dead = {name: torch.zeros_like(p, dtype=torch.bool) for name, p in model.named_parameters()}
    dead["table.weight"][[0, 1, _PADDING]] = True
    dead["table.weight"][:, ::4] = True
    dead["conv.weight"][:, ::4] = True
    dead["first.weight"][:, _UNUSED_INPUTS] = True
    for name in ("first.weight", "first.bias"):
        dead[name][_UNUSED_UNITS] = True
    dead["second.weight"][:, _UNUSED_UNITS] = True
    return dead


def _assert_they_stay(model, optimizer, count):
    dead = _dead_entries(model)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    for x, y in _batches(count):
        assert torch.isfinite(optimizer.step(x, y).loss)
    if isinstance(optimizer, Averaging):
        optimizer.eval_mode()
    for name, p in model.named_parameters():
        assert torch.equal(p.detach()[dead[name]], before[name][dead[name]]), name
        assert not torch.equal(p.detach(), before[name]), name


@pytest.mark.parametrize("full", [256, 6], ids=["all eigenvectors", "the leading ones"])
@pytest.mark.parametrize("options", [{}, {"refresh_every": 2, "update_every": 2, "iterations": 2}])
def test_mlhf_does_not_move_them_whatever_their_index(options, full, monkeypatch):
    monkeypatch.setattr(factor_basis, "_MAX_FULL", full)
    torch.manual_seed(0)
    model = _Net()
    _assert_they_stay(model, MLHF(model, **options), 30)


# Those of others: the library's SOAP, SPlus and PSGD mix coordinates, and L2L's network gives
# steps of its own.
_MOVE = ("soap", "splus", "psgd_kron", "l2l")
# Which is not by the gradient.
_DECAY = ("adamw", "muon", "normuon", "ademamix", "shampoo", "schedule_free_adamw")
_OTHERS = {name: {"weight_decay": 0.0} if name in _DECAY else {} for name in OPTIMIZERS}


@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name not in _MOVE])
def test_no_other_optimizer_moves_them(name):
    torch.manual_seed(0)
    model = _Net()
    _assert_they_stay(model, build(name, _OTHERS[name], model), 12)


def test_the_published_form_does_not_move_them():
    torch.manual_seed(0)
    model = _Net()
    _assert_they_stay(model, MLHF(model, variant="paper"), 12)


class _Masked(nn.Module):
    """Pruned weights, and a mask of no rows or columns, of which a part is lifted later."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(26, 12)
        prune.custom_from_mask(
            self.first, "weight", torch.arange(26) % 5 != torch.arange(12)[:, None] % 5
        )
        self.experts = nn.Parameter(torch.randn(2, 12, 4) * 0.3)
        self.register_buffer("mask", (torch.arange(4) % 3 != torch.arange(12)[:, None] % 3).float())

    def forward(self, x):
        h = torch.tanh(self.first(x))
        return torch.einsum("bi,eio->bo", h, self.experts * self.mask)


@pytest.mark.parametrize("full", [256, 6], ids=["all eigenvectors", "the leading ones"])
@pytest.mark.parametrize("options", [{}, {"refresh_every": 2, "iterations": 2}])
def test_entries_without_a_gradient_stay_too_until_they_have_one(options, full, monkeypatch):
    monkeypatch.setattr(factor_basis, "_MAX_FULL", full)
    torch.manual_seed(0)
    model = _Masked()
    optimizer = MLHF(model, **options)
    before = [p.detach().clone() for p in (model.first.weight_orig, model.experts)]
    dead = [model.first.weight_mask == 0, (model.mask == 0).expand(2, 12, 4)]
    for k, (x, y) in enumerate(_batches(40)):
        if k == 30:
            for p, old, still in zip(
                (model.first.weight_orig, model.experts), before, dead, strict=True
            ):
                assert torch.equal(p.detach()[still], old[still])
                assert not torch.equal(p.detach()[~still], old[~still])
            model.mask.fill_(1)
        optimizer.step(x, y)
    assert torch.equal(model.first.weight_orig.detach()[dead[0]], before[0][dead[0]])
    moved = model.experts.detach()[dead[1]] != before[1][dead[1]]
    assert bool(moved.all())


def test_entries_without_a_gradient_decay_with_the_others():
    torch.manual_seed(0)
    model = _Masked()
    optimizer = MLHF(model, weight_decay=0.1)
    dead = model.first.weight_mask == 0
    before = model.first.weight_orig.detach()[dead].norm()
    for x, y in _batches(10):
        optimizer.step(x, y)
    assert model.first.weight_orig.detach()[dead].norm() < before
