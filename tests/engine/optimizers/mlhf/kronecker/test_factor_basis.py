"""Bases of one factor against dense algebra in float64."""

import pytest
import torch
from torch.utils._pytree import tree_map_only

from mlhf.optimizers.mlhf.kronecker.factor_basis import (
    Eigenbasis,
    IdentityBasis,
    LeadingEigenbasis,
    factor_basis,
)
from mlhf.optimizers.mlhf.kronecker.rotation import Rotation


def _factor(size, rank, seed=0):
    """A matrix with eigenvalues that fall by a half each, the rest of them zero."""
    generator = torch.Generator().manual_seed(seed)
    q, _ = torch.linalg.qr(torch.randn(size, size, generator=generator).double())
    values = torch.zeros(size).double()
    values[:rank] = 0.5 ** torch.arange(rank)
    return (q * values) @ q.T


def _matrix(basis, size):
    return basis.rotate(torch.eye(size).double(), left=True, transposed=False)


@pytest.mark.parametrize(
    ("size", "longest", "kind"),
    [(256, 1024, Eigenbasis), (257, 1024, LeadingEigenbasis), (257, 256, IdentityBasis)],
    ids=["short", "long", "too long"],
)
def test_a_factors_size_decides_on_its_basis(size, longest, kind):
    assert type(factor_basis(size, longest)) is kind


@pytest.mark.parametrize(("size", "expected"), [(513, 128), (1024, 256), (1025, 64)])
def test_a_large_factor_has_few_of_its_eigenvectors(size, expected):
    assert factor_basis(size, 4608)._count == expected


@pytest.mark.parametrize("basis", [Eigenbasis(), LeadingEigenbasis(5)], ids=["all", "leading"])
def test_it_is_one_orthonormal_matrix_from_either_side_and_back(basis):
    size = 20
    same = torch.eye(size).double()
    assert torch.equal(_matrix(basis, size), same)  # before the first refresh
    basis.refresh(_factor(size, size))
    u = _matrix(basis, size)
    torch.testing.assert_close(u.T @ u, same)
    generator = torch.Generator().manual_seed(1)
    m, n = (torch.randn(s, generator=generator).double() for s in ((size, 3), (3, size)))
    before = m.clone(), n.clone()
    torch.testing.assert_close(basis.rotate(m, left=True, transposed=False), u @ m)
    torch.testing.assert_close(basis.rotate(m, left=True, transposed=True), u.T @ m)
    torch.testing.assert_close(basis.rotate(n, left=False, transposed=False), n @ u)
    torch.testing.assert_close(basis.rotate(n, left=False, transposed=True), n @ u.T)
    assert torch.equal(m, before[0])
    assert torch.equal(n, before[1])


def test_a_factor_of_low_rank_is_diagonal_after_one_refresh():
    factor = _factor(40, 6)
    basis = LeadingEigenbasis(10)
    diagonal = basis.refresh(factor)
    u = _matrix(basis, 40)
    torch.testing.assert_close(u @ torch.diag(diagonal) @ u.T, factor)


def test_refreshes_lead_to_the_largest_eigenvalues_and_the_mean_of_the_others():
    factor = _factor(40, 40)
    basis = LeadingEigenbasis(8)
    for _ in range(12):
        diagonal = basis.refresh(factor)
    expected, vectors = torch.linalg.eigh(factor)
    torch.testing.assert_close(diagonal[:8], expected[-8:])
    torch.testing.assert_close(diagonal[8:], expected[:-8].mean().expand(32))
    found = _matrix(basis, 40)[:, :8]
    overlap = (found.T @ vectors[:, -8:]).abs()
    torch.testing.assert_close(overlap, torch.eye(8).double(), atol=1e-5, rtol=0)


def test_a_factor_that_changes_is_followed_from_the_last_refresh():
    """From a random start this would fail: two steps of iteration are few."""
    size, count = 60, 10
    first, second = _factor(size, size, 1), _factor(size, size, 2)
    followed = LeadingEigenbasis(count)
    for fraction in torch.linspace(0, 0.1, 12).tolist():
        target = (1 - fraction) * first + fraction * second
        diagonal = followed.refresh(target)
    expected = torch.linalg.eigvalsh(target)[-count:]
    fresh = LeadingEigenbasis(count).refresh(target)[:count]
    assert (diagonal[:count] - expected).abs().max() < 0.02 * expected.max()
    assert (diagonal[:count] - expected).norm() < 0.5 * (fresh - expected).norm()


def test_nothing_seen_gives_zeros_and_a_basis_all_the_same():
    basis = LeadingEigenbasis(5)
    assert torch.equal(basis.refresh(torch.zeros(20, 20).double()), torch.zeros(20).double())
    u = _matrix(basis, 20)
    torch.testing.assert_close(u.T @ u, torch.eye(20).double())


@pytest.mark.parametrize("kind", [Eigenbasis, lambda: LeadingEigenbasis(5)], ids=["all", "leading"])
def test_it_goes_on_bit_for_bit_from_its_state(kind):
    basis, other = kind(), kind()
    factor = _factor(20, 20).float()
    other.load_state_dict(basis.state_dict(), factor)
    basis.refresh(factor)
    # A checkpoint gives tensors back in rows.
    state = tree_map_only(torch.Tensor, torch.Tensor.contiguous, basis.state_dict())
    other.load_state_dict(state, factor)
    m = torch.randn(20, 4)
    for _ in range(2):
        for transposed in (False, True):
            ours = basis.rotate(m, left=True, transposed=transposed)
            assert torch.equal(ours, other.rotate(m, left=True, transposed=transposed))
        assert torch.equal(basis.refresh(factor + 0.1), other.refresh(factor + 0.1))


def test_a_limit_holds_from_the_first_refresh_on_and_in_the_state():
    basis, other = LeadingEigenbasis(8), LeadingEigenbasis(8)
    basis.limit(20)
    basis.limit(3)
    factor = _factor(20, 20)
    for _ in range(12):
        diagonal = basis.refresh(factor)
    basis.limit(1)  # too late
    torch.testing.assert_close(diagonal[:3], torch.linalg.eigvalsh(factor)[-3:])
    rest = (factor.trace() - diagonal[:3].sum()) / 17
    torch.testing.assert_close(diagonal[3:], rest.expand(17))
    other.load_state_dict(basis.state_dict(), factor)
    assert torch.equal(basis.refresh(2 * factor), other.refresh(2 * factor))


def test_a_limit_comes_too_late_even_where_as_many_coordinates_as_eigenvectors_are_alive():
    factor = torch.zeros(20, 20).double()
    factor[:8, :8] = _factor(8, 8)
    basis = LeadingEigenbasis(8)
    before = basis.refresh(factor)
    basis.limit(3)
    torch.testing.assert_close(basis.refresh(factor), before)


def test_a_state_of_before_there_was_a_limit_keeps_its_number_of_eigenvectors():
    basis, other = LeadingEigenbasis(8), LeadingEigenbasis(8)
    factor = _factor(20, 20)
    basis.refresh(factor)
    state = basis.state_dict()
    del state["count"]
    other.load_state_dict(state, factor)
    other.limit(3)
    assert torch.equal(basis.refresh(factor), other.refresh(factor))


@pytest.mark.parametrize("live", [[0, 3, 7], [*range(5, 20)], [*range(19)], [4, 6, 9, 12, 19, 2]])
@pytest.mark.parametrize("kind", [Eigenbasis, lambda: LeadingEigenbasis(5)], ids=["all", "leading"])
def test_a_coordinate_without_a_gradient_is_a_basis_vector_exactly(kind, live):
    """Whatever its index, and while other coordinates come alive."""
    size, basis = 20, kind()
    for alive in (live[:2], live[:4], live, live):
        factor = torch.zeros(size, size)
        factor[torch.tensor(alive).unsqueeze(1), alive] = _factor(
            len(alive), min(len(alive), 9)
        ).float()
        diagonal = basis.refresh(factor)
        u = basis.rotate(torch.eye(size), left=True, transposed=False)
        for dead in set(range(size)) - set(alive):
            assert u[dead].count_nonzero() == 1
            assert u[:, u[dead].argmax()].count_nonzero() == 1
        torch.testing.assert_close(u.T @ u, torch.eye(size))
        torch.testing.assert_close(diagonal.sum(), factor.trace())
        m = torch.randn(3, size)
        for side in (True, False):
            for transposed in (True, False):
                expected = (
                    (u.T if transposed else u) @ m.T if side else m @ (u.T if transposed else u)
                )
                got = basis.rotate(m.T if side else m, left=side, transposed=transposed)
                torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-5)
    if len(live) <= 5 or isinstance(basis, Eigenbasis):
        torch.testing.assert_close(u @ torch.diag(diagonal) @ u.T, factor, rtol=1e-4, atol=1e-5)


def test_a_coordinate_that_comes_alive_is_followed_and_the_state_says_which_are():
    factor = torch.zeros(20, 20)
    factor[8:, 8:] = _factor(12, 12).float()
    basis, other = LeadingEigenbasis(5), LeadingEigenbasis(5)
    basis.refresh(factor)
    other.load_state_dict(basis.state_dict(), factor)
    m = torch.randn(20, 4)
    assert torch.equal(*(b.rotate(m, left=True, transposed=True) for b in (basis, other)))
    whole = _factor(20, 20).float()
    for _ in range(12):
        diagonal = basis.refresh(whole)
    torch.testing.assert_close(diagonal[:5], torch.linalg.eigvalsh(whole)[-5:])


@pytest.mark.parametrize("none", [[], [0], [1, 3], [0, 1, 2, 3]])
def test_columns_of_zeros_and_of_the_identity_leave_it_orthonormal(none):
    columns = torch.randn(9, 4).double()
    columns[:, none] = 0
    columns[:, 2] = torch.eye(9).double()[:, 2]
    rotation = Rotation()
    rotation.reflect_to(columns)
    u = rotation.apply(torch.eye(9).double(), left=True, transposed=False)
    torch.testing.assert_close(u.T @ u, torch.eye(9).double())
    torch.testing.assert_close(rotation.span, u[:, :4])
    there = rotation.apply(columns, left=True, transposed=True)
    assert there[4:].abs().max() < 1e-12
