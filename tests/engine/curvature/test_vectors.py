"""Flat vectors of parameters of one dtype, of low precision, and of several."""

import pytest
import torch

from mlhf.curvature.vectors import flatten, unflatten, vector_like

HALF, SINGLE, DOUBLE = torch.bfloat16, torch.float32, torch.float64


@pytest.mark.parametrize(
    ("dtypes", "expected"),
    [
        ([SINGLE, SINGLE], SINGLE),
        ([DOUBLE, DOUBLE], DOUBLE),
        ([HALF, HALF], SINGLE),
        ([HALF, SINGLE], SINGLE),
        ([HALF, DOUBLE], DOUBLE),
    ],
)
def test_there_and_back(dtypes, expected):
    tensors = [torch.randn(2, 3).to(dtypes[0]), torch.randn(()).to(dtypes[1])]
    vector = flatten(tensors)
    assert vector.shape == (7,)
    assert vector.dtype == vector_like(tensors).dtype == expected
    assert torch.equal(flatten(tensors, torch.empty(7, dtype=expected)), vector)
    for back, tensor in zip(unflatten(vector, tensors), tensors, strict=True):
        assert torch.equal(back, tensor)
        assert back.dtype == tensor.dtype


def test_pieces_of_the_vectors_own_dtype_are_views():
    vector = torch.zeros(4)
    unflatten(vector, [torch.empty(2, 2)])[0].fill_(1)
    assert bool((vector == 1).all())


@pytest.mark.parametrize("dtypes", [(SINGLE, SINGLE), (HALF, HALF), (SINGLE, DOUBLE)])
def test_tensors_may_be_parts_of_larger_ones(dtypes):
    tensors = [torch.randn(4, 6, dtype=dtypes[0])[:, :3], torch.randn(5, dtype=dtypes[1])]
    expected = torch.cat([t.contiguous().view(-1).to(vector_like(tensors).dtype) for t in tensors])
    assert torch.equal(flatten(tensors), expected)


@pytest.mark.parametrize("size", [3, 2**17])
def test_a_vector_is_no_view(size):
    for tensors in ([torch.zeros(size)], [torch.zeros(size), torch.zeros(2)]):
        flatten(tensors).fill_(1)
        assert not any(bool(t.any()) for t in tensors)


def test_large_parts_of_larger_tensors():
    tensors = [torch.randn(2**10, 2**7)[:, 1:], torch.randn(3)]
    assert torch.equal(flatten(tensors), torch.cat([t.reshape(-1) for t in tensors]))


def test_empty_tensors_keep_their_shapes():
    tensors = [torch.zeros(0, 5), torch.ones(2), torch.zeros(3, 0), torch.ones(1, 0, dtype=HALF)]
    back = unflatten(flatten(tensors), tensors)
    assert [(t.shape, t.dtype) for t in back] == [(t.shape, t.dtype) for t in tensors]
