"""The structure of residual networks, against the papers' counts."""

import pytest
import torch
from torch import nn

from mlhf.data.info import DataInfo
from mlhf.models.build import build
from mlhf.models.params import ResnetParams
from mlhf.models.resnet import PreActivationBlock
from mlhf.models.resnet_plan import Block, resnet_plan
from mlhf.models.specs import summarize

CIFAR = DataInfo("image", (3, 32, 32), 10, "classification", 100, 20)
IMAGENET = DataInfo("image", (3, 224, 224), 1000, "classification", 100, 20)


@pytest.mark.parametrize(
    ("depth", "data", "parameters"),
    [
        # Published counts, rounded: ResNet-20 0.27 M; ResNet-18, 34, 50 of ImageNet 11.69,
        # 21.80, 25.56 M (v1 has a few thousand batch-norm values more or less).
        (20, CIFAR, 0.27e6),
        (18, IMAGENET, 11.69e6),
        (34, IMAGENET, 21.80e6),
        (50, IMAGENET, 25.56e6),
    ],
)
def test_the_size_is_near_the_published(depth, data, parameters):
    assert summarize("resnet", {"depth": depth}, data).parameters == pytest.approx(
        parameters, rel=0.02
    )


@pytest.mark.parametrize("depth", [8, 14, 20, 26, 32, 38, 44, 18, 34, 50])
def test_the_depth_is_as_named(depth):
    assert summarize("resnet", {"depth": depth}, CIFAR).depth == depth


@pytest.mark.parametrize(
    ("params", "side", "stem"),
    [
        ({"depth": 20}, 224, "cifar"),
        ({"depth": 18}, 32, "cifar"),
        ({"depth": 18}, 64, "imagenet"),
        ({"depth": 18, "stem": "cifar"}, 64, "cifar"),
        ({"depth": 50, "stem": "imagenet"}, 32, "imagenet"),
    ],
)
def test_the_stem_follows_depth_and_size(params, side, stem):
    data = DataInfo("image", (3, side, side), 10, "classification", 100, 20)
    assert resnet_plan(ResnetParams(**params), data).stem == stem


def test_the_imagenet_stem_and_stages_shrink_the_image_thirty_two_times():
    network = build("resnet", {"depth": 18, "width": 0.25}, IMAGENET, seed=0)
    seen = []
    network[-2].register_forward_pre_hook(lambda module, args: seen.append(args[0].shape))
    network(torch.zeros(1, 3, 224, 224))
    assert seen == [(1, 128, 7, 7)]


def test_a_block_without_projection_is_the_identity_when_its_last_convolution_is_zero():
    block = PreActivationBlock(Block(4, 4, 4, 1, bottleneck=False))
    nn.init.zeros_(block.convs[-1].weight)
    x = torch.randn(2, 4, 5, 5)
    assert torch.equal(block(x), x)
    assert block.shortcut is None
