"""What is done to long vectors piece by piece is what would be done to them whole."""

import copy

import pytest
import torch
from torch import nn

from mlhf import MLHF
from mlhf.optimizers.mlhf.kronecker import in_cache
from mlhf.optimizers.mlhf.kronecker.damping import Damping
from mlhf.optimizers.mlhf.kronecker.in_cache import piece_size, pieces, pieces_of_segments
from mlhf.optimizers.mlhf.kronecker.quadratic_model import combined


@pytest.fixture
def small_pieces(monkeypatch):
    """Vectors of more than four times seven numbers are cut."""
    monkeypatch.setattr(in_cache, "PIECE", 7)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize(("length", "size"), [(1, 1), (28, 28), (29, 7), (0, 1)])
def test_long_vectors_are_cut(length, size, small_pieces):
    vectors = torch.arange(length), -torch.arange(length)
    assert piece_size(vectors[0]) == size
    first, second = zip(*pieces(*vectors), strict=True)
    assert [len(t) for t in first[:-1]] == [size] * (len(first) - 1)
    assert torch.equal(torch.cat(first), vectors[0])
    assert torch.equal(torch.cat(second), vectors[1])


def test_each_thread_has_a_piece(small_pieces):
    torch.set_num_threads(2)
    assert piece_size(torch.empty(56)) == 56
    assert piece_size(torch.empty(57)) == 14


@pytest.mark.parametrize("sizes", [(30,), (3, 3, 1, 20, 3), (7, 7, 7, 7, 2), (0, 29, 0, 1)])
def test_segments_are_cut_as_the_vector_is(sizes, small_pieces):
    values = [float(i) for i in range(len(sizes))]
    found = list(pieces_of_segments(sizes, values, 7))
    assert [sum(own) for own, _ in found] == [7, 7, 7, 7, 2]
    spread = [v for own, of in found for n, v in zip(own, of, strict=True) for _ in range(n)]
    assert spread == [v for n, v in zip(sizes, values, strict=True) for _ in range(n)]


@pytest.mark.parametrize("decays", [None, torch.rand(40).double()])
def test_the_damping_is_that_of_the_whole(decays, monkeypatch):
    """s = factor (√v̂ + 1e-5 g) + decay, P = 1 / (s + 2D), by the mean v of two squares."""
    torch.manual_seed(0)
    gradients, diagonal = torch.randn(2, 40).double(), torch.rand(40).double()
    factors = torch.cat([torch.full((11,), 3.0), torch.full((29,), 5.0)]).double()
    v = 0.01 * (0.99 * gradients[0] ** 2 + 0.5 * gradients[1] ** 2)
    s = factors * ((v / (1 - 0.99**2)).sqrt() + 1e-5 * 4) + 0.1
    inverse = 1 / (s + 2 * diagonal + (0 if decays is None else decays))
    for piece in (7, 100):
        monkeypatch.setattr(in_cache, "PIECE", piece)
        damping = Damping()
        for steps, (b, fraction) in enumerate(zip(gradients, (1.0, 0.5), strict=True)):
            found = damping.step(
                *(b, diagonal, [(11, 3.0), (29, 5.0)]),
                steps=steps,
                loss_scale=torch.tensor(4.0).double(),
                fraction=fraction,
                on_diagonal=2.0,
                decay=0.1,
                decays=decays,
            )
        torch.testing.assert_close(damping.second_moment, v)
        torch.testing.assert_close(found.damping, s)
        torch.testing.assert_close(found.inverse, inverse)
        torch.testing.assert_close(found.direction, inverse * gradients[1])


def test_a_combination_is_that_of_the_whole(small_pieces):
    vectors = list(torch.randn(3, 30).double())
    expected = 2 * vectors[0] - vectors[1] + 0.5 * vectors[2]
    torch.testing.assert_close(combined([2.0, -1.0, 0.5], vectors), expected)


def test_a_run_is_the_same(monkeypatch):
    """Steps that solve and steps that do not, with a bias in a block of aligned rows."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 3)).double()
    batches = [(torch.randn(8, 6).double(), torch.randint(3, (8,))) for _ in range(12)]
    ends = []
    for piece, large in ((1 << 16, 1 << 18), (7, 1)):
        monkeypatch.setattr(in_cache, "PIECE", piece)
        monkeypatch.setattr("mlhf.optimizers.mlhf.kronecker.blocks._LARGE", large)
        optimizer = MLHF(copy.deepcopy(model), weight_decay=0.01)
        for x, y in batches:
            optimizer.step(x, y)
        ends.append(torch.cat([p.detach().reshape(-1) for p in optimizer.model.parameters()]))
    torch.testing.assert_close(*ends)
    assert not torch.equal(ends[0], torch.cat([p.reshape(-1) for p in model.parameters()]))
