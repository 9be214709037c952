"""Kinds of parameters from the module tree."""

import itertools

import torch
from torch import nn

from mlhf.optimizers.learned.kinds import (
    KINDS,
    Segment,
    by_kind,
    kind_of,
    segments,
)


def _kinds(module):
    return [KINDS[kind_of(module, n, p)] for n, p in module.named_parameters(recurse=False)]


def test_the_papers_six():
    assert _kinds(nn.Conv2d(1, 2, 3)) == ["conv_kernel", "conv_bias"]
    assert _kinds(nn.Linear(2, 3)) == ["dense_kernel", "dense_bias"]
    assert _kinds(nn.BatchNorm2d(2)) == ["norm_gamma", "norm_beta"]


def test_others_map_to_the_nearest():
    assert _kinds(nn.ConvTranspose1d(1, 2, 3)) == ["conv_kernel", "conv_bias"]
    assert _kinds(nn.GroupNorm(1, 2)) == _kinds(nn.LayerNorm(2)) == ["norm_gamma", "norm_beta"]
    assert _kinds(nn.Embedding(3, 2)) == ["dense_kernel"]
    assert _kinds(nn.LSTM(2, 3)) == ["dense_kernel"] * 2 + ["dense_bias"] * 2
    assert _kinds(nn.MultiheadAttention(4, 2)) == ["dense_kernel", "dense_bias"]
    assert _kinds(nn.PReLU()) == ["norm_gamma"]

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.filters = nn.Parameter(torch.zeros(2, 2, 2))
            self.matrix = nn.Parameter(torch.zeros(2, 2))
            self.bias = nn.Parameter(torch.zeros(2))
            self.scale = nn.Parameter(torch.zeros(2))
            self.token = nn.Parameter(torch.zeros(2))

    expected = ["conv_kernel", "dense_kernel", "dense_bias", "norm_gamma", "dense_bias"]
    assert _kinds(Own()) == expected


def test_kinds_lie_together_and_shared_parameters_once():
    first, second = nn.Linear(3, 3), nn.Linear(3, 3)
    second.weight = first.weight
    model = nn.Sequential(first, nn.BatchNorm1d(3), second, nn.Conv1d(1, 2, 2))
    model[1].bias.requires_grad_(False)
    found, found_segments = by_kind(model)
    convolution = [model[3].weight, model[3].bias]
    dense = [first.weight, first.bias, second.bias]
    expected = [*convolution, *dense, model[1].weight]
    assert [id(p) for p in found] == [id(p) for p in expected]
    ends = [0, 4, 6, 15, 21, 24]
    expected = [Segment(*pair, kind) for kind, pair in enumerate(itertools.pairwise(ends))]
    assert found_segments == expected


def test_neighbours_of_a_kind_are_one_segment():
    assert segments([(2, 1), (3, 1), (0, 5), (1, 2)]) == [Segment(0, 5, 1), Segment(5, 6, 2)]
