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
