"""Sides whose factors are kept as a sketch, against dense algebra in float64."""

import pytest
import torch
from torch import nn

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker import blocks, factor_basis
from mlhf.optimizers.mlhf.kronecker.basis import Basis
from mlhf.optimizers.mlhf.kronecker.rotation import both_sides
from mlhf.optimizers.mlhf.kronecker.tracked import TrackedEigenbasis, _mixed


def _matrix(basis, size):
    return basis.rotate(torch.eye(size).double(), left=True, transposed=False)


def _rows(size, seed=0, count=6):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, size, generator=generator).double()


def test_a_mean_of_low_rank_is_known_exactly():
    size, kept = 30, 0.8
    basis, mean = TrackedEigenbasis(12), torch.zeros(size, size).double()
    for seed, weight in enumerate((0.0, kept)):
        rows = _rows(size, seed)
        basis.include(rows, weight)
        mean = weight * mean + (1 - weight) * rows.T @ rows if seed else rows.T @ rows
    diagonal = basis.refresh(mean.diagonal())
    u = _matrix(basis, size)
    torch.testing.assert_close(u.T @ u, torch.eye(size).double())
    torch.testing.assert_close(u @ torch.diag(diagonal) @ u.T, mean)


def test_of_a_mean_of_full_rank_it_has_the_leading_directions_and_the_trace():
    size, count, values = 40, 8, 0.5 ** torch.arange(40).double()
    directions = torch.linalg.qr(_rows(size, count=size))[0]
    generator = torch.Generator().manual_seed(1)
    basis, mean = TrackedEigenbasis(count), torch.zeros(size, size).double()
    for update in range(1, 30):
        noise = torch.randn(count, size, generator=generator).double()  # not mixed
        rows = noise * values.sqrt() @ directions / count**0.5
        kept = min(0.9, 1 - 1 / update)
        mean = kept * mean + (1 - kept) * rows.T @ rows
        basis.include(rows, kept)
    diagonal = basis.refresh(mean.diagonal())
    expected = torch.linalg.eigvalsh(mean).flip(0)
    torch.testing.assert_close(diagonal[:4], expected[:4], rtol=0.01, atol=0)
    torch.testing.assert_close(diagonal.sum(), mean.trace())
    projected = _matrix(basis, size)[:, :4].T @ mean @ _matrix(basis, size)[:, :4]
    torch.testing.assert_close(projected.diagonal(), expected[:4], rtol=0.01, atol=0)


@pytest.mark.parametrize("count", [3, 4, 5, 23, 400])
def test_however_many_rows_there_are_the_diagonal_sums_to_the_trace(count):
    rows = _rows(12, count=count)
    basis = TrackedEigenbasis(4)
    basis.include(rows, 0.0)
    torch.testing.assert_close(basis.refresh(rows.square().sum(0)).sum(), rows.square().sum())


def test_rows_that_are_mixed_have_the_same_outer_products_in_expectation():
    rows = _rows(5, count=23)
    mixed = [_mixed(rows, 4, seed) for seed in range(4000)]
    assert all(len(m) == 4 for m in mixed)
    mean = sum(m.T @ m for m in mixed) / len(mixed)
    expected = rows.T @ rows
    assert (mean - expected).norm() < 0.1 * expected.norm()
    assert _mixed(rows, 23, 0) is rows


@pytest.mark.parametrize("live", [[0, 3, 7], [4, 6, 9, 12, 19, 2], [*range(5, 20)]])
def test_a_coordinate_without_a_gradient_is_a_basis_vector_exactly(live):
    size, basis = 20, TrackedEigenbasis(5)
    diagonal = torch.zeros(size).double()
    for seed in range(3):
        rows = torch.zeros(5, size).double()
        rows[:, live] = _rows(len(live), seed, count=5)
        kept = min(0.9, 1 - 1 / (seed + 1))
        diagonal = kept * diagonal + (1 - kept) * rows.square().sum(0)
        basis.include(rows, kept)
        found = basis.refresh(diagonal)
    u = _matrix(basis, size)
    for dead in set(range(size)) - set(live):
        assert u[dead].count_nonzero() == 1
        assert u[:, u[dead].argmax()].count_nonzero() == 1
    torch.testing.assert_close(u.T @ u, torch.eye(size).double())
    torch.testing.assert_close(found.sum(), diagonal.sum())


def test_one_live_coordinate_is_followed_without_an_end():
    """As of a layer whose inputs are all 0, with a bias: rounding must not grow."""
    basis, rows = TrackedEigenbasis(16), torch.zeros(4, 2000)
    rows[:, 7] = 0.5
    for update in range(1, 40):
        basis.include(rows, min(0.95, 1 - 1 / update))
    diagonal = basis.refresh(rows.square().sum(0))
    assert diagonal.sum() == pytest.approx(1, rel=1e-4)
    assert diagonal.max() == pytest.approx(1, rel=1e-4)


def test_nothing_seen_gives_zeros():
    basis = TrackedEigenbasis(5)
    basis.include(torch.zeros(3, 20), 0.0)
    assert torch.equal(basis.refresh(torch.zeros(20)), torch.zeros(20))


@pytest.fixture
def tracked(monkeypatch):
    """Small sides are kept as sketches."""
    monkeypatch.setattr(factor_basis, "_MAX_FULL", 4)
    monkeypatch.setattr(factor_basis, "_MAX_FACTOR", 8)


class _Network(nn.Module):
    """A layer, a convolution and a stack, each with long sides."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(2, 12, 3)
        self.layer = nn.Linear(48, 20)
        self.stack = nn.Parameter(torch.randn(2, 10, 20) / 5)
        self.head = nn.Linear(10, 3)

    def forward(self, x):
        y = torch.tanh(self.layer(torch.tanh(self.conv(x)).flatten(1)))
        return self.head(torch.tanh(torch.einsum("bi,eoi->beo", y, self.stack)).sum(1))


def _trained(optimizer, steps, seed):
    generator = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        x = torch.randn(16, 2, 4, 4, generator=generator)
        y = (x.mean((1, 2, 3)) > 0).long() + (x[:, 0, 0, 0] > 0).long()
        losses.append(float(optimizer.step(x, y).loss))
    return losses


def _tensors(value):
    if isinstance(value, torch.Tensor):
        return [value]
    parts = value.values() if isinstance(value, dict) else value
    return [t for v in parts if isinstance(v, dict | list | torch.Tensor) for t in _tensors(v)]


def _made():
    torch.manual_seed(0)
    return MLHF(_Network())


def test_a_run_goes_on_bit_for_bit_and_learns(tracked):
    whole, first, second = _made(), _made(), _made()
    losses = _trained(whole, 12, 0) + _trained(whole, 25, 1)
    _trained(first, 12, 0)
    second.load_state_dict(first.state_dict())
    second.model.load_state_dict(first.model.state_dict())
    assert losses[12:] == _trained(second, 25, 1)
    assert sum(losses[-5:]) < 0.7 * sum(losses[:5])
    kept = sum(t.nbytes for t in _tensors(whole.state_dict()) if t.is_floating_point())
    assert kept <= whole.state_bytes < 1.3 * kept
    basis = whole._basis
    sides = [b for block in basis._layers for b in block._bases]
    assert sum(isinstance(b, TrackedEigenbasis) for b in sides) >= 4


def test_a_state_with_factors_in_full_is_taken_over(tracked, monkeypatch):
    """As checkpoints of before have it; the next step is the same, since the basis is."""
    with monkeypatch.context() as before:
        for module in (factor_basis, blocks):
            before.setattr(module, "is_tracked", lambda *_: False)
        old = _made()
        _trained(old, 30, 0)
    new = _made()
    new.load_state_dict(old.state_dict())
    new.model.load_state_dict(old.model.state_dict())
    x, y = torch.randn(8, 2, 4, 4), torch.zeros(8).long()
    for optimizer in (old, new):  # no update between
        optimizer._schedule.next_update = optimizer._schedule.next_refresh = 1 << 30
        optimizer.step(x, y)
    for ours, theirs in zip(new.model.parameters(), old.model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    for one in (old, new):
        one._schedule.next_update = one._schedule.next_refresh = 0
    assert sum(_trained(new, 10, 1)) < 1.2 * sum(_trained(old, 10, 1))


@pytest.mark.parametrize("dead", [0, 4])
@pytest.mark.parametrize("there", [True, False])
@pytest.mark.parametrize("overwrite", [True, False])
def test_both_sides_at_once_are_one_after_the_other(dead, there, overwrite):
    bases = []
    for seed, size in enumerate((30, 25)):
        basis, rows = TrackedEigenbasis(4), _rows(size, seed)
        rows[:, :dead] = 0  # coordinates that are exchanged with others
        basis.include(rows, 0.0)
        basis.refresh(rows.square().sum(0))
        bases.append(basis)
    left, right = bases
    matrix = _rows(25, seed=2, count=30)
    once = left.rotate(matrix, left=True, transposed=there)
    expected = right.rotate(once, left=False, transposed=not there)
    given = matrix.clone()
    both = both_sides(left.rotation, right.rotation, given, there=there, overwrite=overwrite)
    torch.testing.assert_close(both, expected)
    assert overwrite or torch.equal(given, matrix)


def test_a_side_that_is_not_rotated_yet_has_no_reflections():
    basis = TrackedEigenbasis(4)
    assert both_sides(basis.rotation, basis.rotation, _rows(30, count=30), there=True) is None


@pytest.mark.parametrize(("wide", "at_least", "at_most"), [(False, 40, 40), (True, 12, 20)])
def test_sketches_are_updated_less_often_as_a_run_goes_on(
    wide, at_least, at_most, request, monkeypatch
):
    if wide:
        request.getfixturevalue("tracked")
    updates, update = [], Basis.update
    monkeypatch.setattr(Basis, "update", lambda *a, **k: (updates.append(1), update(*a, **k))[1])
    optimizer = MLHF(_Network())
    assert optimizer._basis.is_tracked == wide
    _trained(optimizer, 40, 0)
    assert at_least <= len(updates) <= at_most
