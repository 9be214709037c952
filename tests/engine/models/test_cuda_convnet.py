"""The initialisation of the paper's network."""

import pytest
import torch
from torch import nn

from mlhf.data.info import DataInfo
from mlhf.models.build import build

IMAGE = DataInfo("image", (3, 32, 32), 10, "classification", 100, 20)


@pytest.mark.parametrize(("width", "last_std"), [(1.0, 1 / 192), (0.5, 1 / 96)])
def test_weights_are_drawn_as_the_paper_s(width, last_std):
    network = build("cuda_convnet", {"width": width}, IMAGE, seed=0)
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.Linear)]
    expected = [0.05, 0.05, 0.04, 0.04, last_std]
    for layer, std in zip(layers, expected, strict=True):
        assert layer.weight.mean().abs() < 4 * std / layer.weight.numel() ** 0.5
        assert layer.weight.std().item() == pytest.approx(std, rel=0.05)
    biases = [layer.bias.unique().tolist() for layer in layers]
    torch.testing.assert_close(biases, [[0.0], [0.0], [0.1], [0.1], [0.0]], rtol=1e-6, atol=0)
