"""How a pass uses parameters: which of them are kernels of a convolution."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils import parametrizations

from mlhf.curvature.uses import Uses

_X = torch.randn(2, 4, 9)


def _uses(function, *shape):
    parameter = nn.Parameter(torch.randn(*shape))
    return Uses([function(parameter)]), parameter


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda w: F.conv1d(_X, w), (3, 4, 2)),
        (lambda w: F.conv_transpose1d(_X, w), (4, 3, 2)),
        (lambda w: F.conv2d(_X.unsqueeze(2), (w - w.mean()) / w.std()), (3, 4, 1, 2)),
        (lambda w: F.conv1d(_X, (w * (torch.arange(2) > 0)).transpose(0, 1)), (4, 3, 2)),
        (lambda w: F.conv1d(_X, w).flatten(1) @ torch.ones(24, 2), (3, 4, 2)),
    ],
    ids=["plain", "transposed", "standardized", "masked", "matrix product afterwards"],
)
def test_a_kernel_is_what_a_convolutions_weight_is_made_of(function, shape):
    uses, parameter = _uses(function, *shape)
    assert uses.used(parameter)
    assert uses.is_kernel(parameter)


@pytest.mark.parametrize(
    ("function", "shape"),
    [
        (lambda w: torch.einsum("bit,eio->bo", _X, w), (8, 4, 3)),
        (lambda w: torch.bmm(_X.transpose(1, 2), w), (2, 4, 3)),
        (lambda w: _X.transpose(1, 2) @ w[1], (5, 4, 3)),
        (lambda w: F.linear(_X.transpose(1, 2), w[0].T), (5, 4, 3)),
        (lambda w: F.conv1d(_X + w, torch.ones(2, 4, 1)), (1, 4, 9)),
        (lambda w: F.conv1d(_X, (w @ torch.ones(3, 2))), (3, 4, 3)),
    ],
    ids=["einsum", "bmm", "indexed", "linear", "input of a convolution", "makes a kernel"],
)
def test_other_uses_are_none(function, shape):
    uses, parameter = _uses(function, *shape)
    assert uses.used(parameter)
    assert not uses.is_kernel(parameter)


def test_both_parts_of_a_normalized_weight_are_kernels():
    module = parametrizations.weight_norm(nn.Conv1d(4, 3, 2))
    uses = Uses([module(_X)])
    assert all(uses.is_kernel(p) for p in module.parametrizations.parameters())
    assert not uses.is_kernel(module.bias)


def test_what_is_not_used_is_neither():
    used, other = (nn.Parameter(torch.ones(3, 4, 2)) for _ in range(2))
    uses = Uses([F.conv1d(_X, used)])
    assert not uses.used(other)
    assert not uses.is_kernel(other)


def _table(function, *shape):
    parameter = nn.Parameter(torch.randn(*shape))
    return Uses([function(parameter)]).per_row(parameter)


_H = torch.randn(5, 4, 3, requires_grad=True)  # (samples, places, features)


@pytest.mark.parametrize(
    ("function", "shape", "expected"),
    [
        (lambda w: _H + w, (4, 3), 5),
        (lambda w: _H + w, (1, 4, 3), 5),
        (lambda w: _H + w[:, :4], (1, 9, 3), 5),
        (lambda w: torch.cat([_H, _H], 1) + F.dropout(w.expand(5, 8, 3)), (8, 3), 5),
        (lambda w: _H + F.embedding(torch.arange(4), w), (9, 3), 5),
        (lambda w: _H + F.embedding(torch.arange(4).expand(5, 4), w).float(), (9, 3), 5),
        (lambda w: _H + w.index_select(0, torch.arange(4)), (9, 3), 5),
        (lambda w: _H + w[0], (1, 3), 20),
        (lambda w: _H + F.embedding(torch.tensor([[0, 1, 1, 2]] * 5), w), (9, 3), None),
        (lambda w: _H + w, (3,), None),
        (lambda w: _H @ (torch.ones(3, 2, requires_grad=True) + w), (3, 2), None),
        (lambda w: _H + torch.tanh(w), (4, 3), None),
    ],
    ids=[
        *("added", "with an axis of one", "sliced", "expanded", "looked up", "for each sample"),
        *("selected", "the same for all", "tokens", "a bias", "part of a weight", "a function"),
    ],
)
def test_how_often_a_row_of_a_table_is_used(function, shape, expected):
    assert _table(function, *shape) == expected


@pytest.mark.parametrize(
    "then",
    [
        lambda h: F.layer_norm(h, (3,)),
        lambda h: F.linear(h, torch.ones(2, 3, requires_grad=True)),
        lambda h: F.conv1d(h.mT, torch.ones(2, 3, 1)),
        lambda h: h.pow(2),
        lambda h: h + F.layer_norm(h.flatten(1), (12,)).view_as(h),
    ],
    ids=["norm", "linear", "convolution", "power", "residual"],
)
def test_a_tables_share_of_what_it_is_added_to_is_measured_where_the_sum_was_kept(then):
    table = nn.Parameter(torch.randn(9, 3))
    total = _H.detach() + table[:4]
    uses = Uses([then(_H.detach() + F.embedding(torch.arange(4), table))])
    expected = float((table[:4].square().mean() / total.square().mean()).detach())
    assert uses.share(table) == pytest.approx(expected)
    assert Uses([then(total)]).share(table) == pytest.approx(expected)


def test_a_share_that_nothing_kept_is_not_known():
    table = nn.Parameter(torch.randn(4, 3))
    uses = Uses([(_H.detach() + table).sum(1)])
    assert uses.per_row(table) == 5
    assert uses.share(table) is None
