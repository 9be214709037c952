"""Residual networks of the pre-activation form (He et al. 2016, Identity Mappings)."""

from torch import Tensor, nn

from mlhf.data.info import DataInfo
from mlhf.models.layers import GlobalAvgPool
from mlhf.models.params import ResnetParams
from mlhf.models.resnet_plan import Block, ResnetPlan, resnet_plan


def build(params: ResnetParams, info: DataInfo) -> nn.Module:
    """Return the network, convolutions initialised as in He et al. 2015."""
    return resnet(resnet_plan(params, info), info.input_shape[0], info.outputs)


class PreActivationBlock(nn.Module):
    """x → x + convolutions, each after batch norm and ReLU.

    Where the shape changes, the shortcut is a 1x1 convolution of the first activated input.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        convolutions = list(block.convolutions())
        self.norms = nn.ModuleList(nn.BatchNorm2d(source) for source, *_ in convolutions)
        self.convs = nn.ModuleList(_conv(*convolution) for convolution in convolutions)
        self.shortcut = (
            _conv(block.source, block.result, 1, block.stride) if block.projects else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out = x
        for index, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            out = nn.functional.relu(norm(out))
            if index == 0 and self.shortcut is not None:
                x = self.shortcut(out)
            out = conv(out)
        return x + out


def resnet(plan: ResnetPlan, channels: int, outputs: int) -> nn.Sequential:
    """Return the planned network for images with this many channels."""
    large = plan.stem == "imagenet"
    stem: list[nn.Module] = [_conv(channels, plan.stem_channels, *((7, 2) if large else (3, 1)))]
    if large:
        stem.append(nn.MaxPool2d(3, stride=2, padding=1))
    network = nn.Sequential(
        *stem,
        *(PreActivationBlock(block) for block in plan.blocks),
        nn.BatchNorm2d(plan.features),
        nn.ReLU(),
        GlobalAvgPool(),
        nn.Linear(plan.features, outputs),
    )
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
    return network


def _conv(source: int, result: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(source, result, kernel, stride, padding=kernel // 2, bias=False)
