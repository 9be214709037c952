"""Stacks of matrices against the same matrices apart, and what counts as a stack."""

import io

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker import factor_basis

_EXPERTS = 3


class _Experts(nn.Module):
    """A sum of experts, of which each sample has two; stacked in one parameter, or apart."""

    def __init__(self, stacked):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        weights = torch.randn(_EXPERTS, 7, 9, generator=generator).double() * 0.3
        self.stacked = nn.Parameter(weights) if stacked else None
        self.apart = None if stacked else nn.ParameterList(weights.unbind())
        self.out = nn.Linear(9, 3).double()
        nn.init.normal_(self.out.weight, generator=generator)
        nn.init.zeros_(self.out.bias)

    def forward(self, x):
        if self.stacked is not None:
            each = torch.einsum("bi,eio->beo", x, self.stacked)
        else:
            each = torch.stack([x @ w for w in self.apart], 1)
        gate = torch.stack([x[:, 0] > 0, x[:, 0] <= 0, x[:, 1] > -9], 1)
        return self.out((torch.tanh(each) * gate.unsqueeze(2)).sum(1))


def _batches(count):
    generator = torch.Generator().manual_seed(1)
    for _ in range(count):
        x = torch.randn(16, 7, generator=generator).double()
        yield x, x[:, :3].argmax(1)


def _weights(model):
    experts = model.stacked if model.apart is None else torch.stack(list(model.apart))
    return torch.cat([experts.detach().flatten(), model.out.weight.detach().flatten()])


@pytest.mark.parametrize("longest", [4608, 8], ids=["both sides", "one side"])
@pytest.mark.parametrize("full", [256, 4], ids=["all eigenvectors", "the leading ones"])
def test_a_stack_takes_the_steps_of_its_matrices_apart(full, longest, monkeypatch):
    monkeypatch.setattr(factor_basis, "_MAX_FULL", full)
    monkeypatch.setattr(factor_basis, "_MAX_FACTOR", full)  # as of sides in stacks
    ends = []
    for stacked in (True, False):
        model = _Experts(stacked)
        optimizer = MLHF(model, max_dimension=longest)
        for batch in _batches(8):
            optimizer.step(*batch)
        ends.append(_weights(model))
    torch.testing.assert_close(*ends, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("full", [256, 4], ids=["all eigenvectors", "the leading ones"])
def test_a_stack_goes_on_bit_for_bit_from_its_state(full, monkeypatch):
    monkeypatch.setattr(factor_basis, "_MAX_FULL", full)
    model, other = _Experts(True), _Experts(True)
    optimizer, restored = MLHF(model), MLHF(other)
    batches = list(_batches(8))
    for batch in batches[:4]:
        optimizer.step(*batch)
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    other.load_state_dict(model.state_dict())
    for batch in batches[4:]:
        optimizer.step(*batch)
        restored.step(*batch)
    assert torch.equal(_weights(model), _weights(other))


@pytest.mark.parametrize("full", [256, 4], ids=["all eigenvectors", "the leading ones"])
def test_a_skipped_step_leaves_a_stack_as_it_was(full, monkeypatch):
    monkeypatch.setattr(factor_basis, "_MAX_FULL", full)
    ends = []
    for skips in (False, True):
        model = _Experts(True)
        optimizer = MLHF(model, refresh_every=1, update_every=1)
        for k, (x, y) in enumerate(_batches(5)):
            if skips and k % 2:
                assert optimizer.step(x * torch.inf, y).skipped
            optimizer.step(x, y)
        ends.append(_weights(model))
    assert torch.equal(*ends)


class _Used(nn.Module):
    def __init__(self, shape, function):
        super().__init__()
        self.w, self.function = nn.Parameter(torch.randn(*shape) * 0.1), function

    def forward(self, x):
        return self.function(x, self.w)


@pytest.mark.parametrize(
    ("shape", "function", "expected"),
    [
        ((8, 4, 3), lambda x, w: torch.einsum("bti,eio->bto", x, w), (8, 4, 3)),
        ((5, 4, 3), lambda x, w: x @ w[2], (5, 4, 3)),
        ((2, 5, 4, 3), lambda x, w: x @ w[1, 2], (10, 4, 3)),
        ((1, 6, 4), lambda x, w: x + w, (1, 6, 4)),
        ((3, 4, 2), lambda x, w: F.conv1d(x.mT, w).mT, (3, 8)),
        ((3, 4, 1, 2), lambda x, w: F.conv2d(x.mT.unsqueeze(2), w)[:, :, 0].mT, (3, 8)),
    ],
    ids=["einsum", "indexed", "two stacks", "places", "conv1d", "conv2d"],
)
def test_the_use_of_a_parameter_decides_whether_it_is_a_stack(shape, function, expected):
    model = _Used(shape, function)
    optimizer = MLHF(model)
    x = torch.randn(8, 6, 4)
    target = torch.zeros(model(x).shape[:-1], dtype=torch.long)
    losses = [float(optimizer.step(x, target).loss) for _ in range(4)]
    ((_, block),) = optimizer._basis._matrices
    assert block.shape == expected
    assert losses[-1] < losses[0]


def test_a_matrix_that_is_used_late_is_looked_at_then():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.w = nn.Linear(4, 3), nn.Parameter(torch.zeros(2, 4, 3))
            self.late = False

        def forward(self, x):
            return self.first(x) + (x @ self.w[0] if self.late else 0)

    model = Late()
    optimizer = MLHF(model)
    x = torch.randn(8, 4)
    for k in range(6):
        model.late = k > 2
        optimizer.step(x, torch.arange(8) % 3)
        ((_, block),) = optimizer._basis._matrices
        assert block.is_stack == (k > 2)
        assert bool(model.w.any()) == (k > 2)


def _wide():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(400, 300), nn.Tanh(), nn.Linear(300, 3))


def _wide_batch(rows, seed):
    x = torch.randn(rows, 400, generator=torch.Generator().manual_seed(seed))
    return x, x[:, :3].argmax(1)


@pytest.mark.parametrize(
    ("rows", "first", "expected"),
    [(64, 64, [16, 16]), (100, 100, [25, 25]), (256, 256, [75, 100]), (100, 80, [20, 20])],
    ids=["few rows", "a fourth of them", "enough", "a smaller batch first"],
)
def test_long_sides_have_few_eigenvectors_where_a_batch_has_few_rows(rows, first, expected):
    """120,300 numbers are more than 512 a row for up to 234 rows."""
    optimizer = MLHF(_wide())
    for k in range(3):
        optimizer.step(*_wide_batch(rows if k else first, k))
    bases = optimizer._basis._layers[0]._bases
    assert [basis._count for basis in bases] == expected


def test_a_run_with_limited_sides_goes_on_bit_for_bit():
    model, other = _wide(), _wide()
    optimizer, restored = MLHF(model), MLHF(other)
    for k in range(4):
        optimizer.step(*_wide_batch(64, k))
    buffer = io.BytesIO()
    torch.save(optimizer.state_dict(), buffer)
    buffer.seek(0)
    restored.load_state_dict(torch.load(buffer, weights_only=True))
    other.load_state_dict(model.state_dict())
    for k in range(4, 8):
        optimizer.step(*_wide_batch(64, k))
        restored.step(*_wide_batch(64, k))
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert torch.equal(ours, theirs)
