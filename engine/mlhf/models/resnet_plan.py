"""The stages and sizes of a residual network, by arithmetic."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from mlhf.core.errors import SpecError
from mlhf.data.info import DataInfo
from mlhf.models.params import ResnetParams
from mlhf.models.recipes import need_image, scaled

_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3)}


@dataclass(frozen=True)
class Block:
    """One residual block.

    Attributes:
        width: Channels inside.
        result: Channels after it: ``width``, or four times that for a bottleneck.
    """

    source: int
    width: int
    result: int
    stride: int
    bottleneck: bool

    @property
    def projects(self) -> bool:
        """Whether the shortcut is a 1x1 convolution."""
        return self.stride != 1 or self.source != self.result

    def convolutions(self) -> Iterator[tuple[int, int, int, int]]:
        """Yield source, result, kernel size and stride of each convolution on the main way."""
        if self.bottleneck:
            yield self.source, self.width, 1, 1
            yield self.width, self.width, 3, self.stride
            yield self.width, self.result, 1, 1
        else:
            yield self.source, self.width, 3, self.stride
            yield self.width, self.result, 3, 1


@dataclass(frozen=True)
class ResnetPlan:
    """All that is needed to build the network."""

    stem: Literal["cifar", "imagenet"]
    stem_channels: int
    blocks: tuple[Block, ...]

    @property
    def features(self) -> int:
        """Channels before the last linear map."""
        return self.blocks[-1].result


def resnet_plan(params: ResnetParams, data: DataInfo) -> ResnetPlan:
    """Return the blocks for these parameters.

    Raises:
        SpecError: The depth is none of the documented ones, or the stem does not go with it.
    """
    wide = params.depth in _BLOCKS
    if not wide and params.depth % 6 != 2:
        raise SpecError(
            "/params/depth", "must be 8, 14, 20, 26, 32, 38, 44 (6n + 2), or 18, 34, 50"
        )
    if not wide and params.stem == "imagenet":
        raise SpecError("/params/stem", "the imagenet stem goes with depths 18, 34 and 50")
    need_image(data, "resnet", 4)
    stem = params.stem
    if stem == "auto":
        stem = "imagenet" if wide and min(data.input_shape[1:]) >= 64 else "cifar"
    counts = _BLOCKS[params.depth] if wide else ((params.depth - 2) // 6,) * 3
    first = scaled(64 if wide else 16, params.width)
    bottleneck = params.depth == 50
    blocks, source = [], first
    for stage, count in enumerate(counts):
        width = first * 2**stage
        for index in range(count):
            stride = 2 if stage > 0 and index == 0 else 1
            block = Block(source, width, width * 4 if bottleneck else width, stride, bottleneck)
            blocks.append(block)
            source = block.result
    return ResnetPlan(stem, first, tuple(blocks))


def resnet_sizes(plan: ResnetPlan, data: DataInfo) -> tuple[int, int, int, int]:
    """Return parameters, activations per sample, depth in weighted layers, and the last pixels.

    A block computes batch norm, ReLU and convolution in turn; each hands on one tensor.
    """
    channels, *sides = data.input_shape
    kernel, stride = (7, 2) if plan.stem == "imagenet" else (3, 1)
    sides = _after(sides, stride)
    parameters = channels * plan.stem_channels * kernel**2
    activations = plan.stem_channels * sides[0] * sides[1]
    if plan.stem == "imagenet":
        sides = _after(sides, 2)
        activations += plan.stem_channels * sides[0] * sides[1]
    depth = 2
    for block in plan.blocks:
        for source, result, kernel, stride in block.convolutions():
            parameters += 2 * source + source * result * kernel**2
            activations += 2 * source * sides[0] * sides[1]
            sides = _after(sides, stride)
            activations += result * sides[0] * sides[1]
            depth += 1
        if block.projects:
            parameters += block.source * block.result
            activations += block.result * sides[0] * sides[1]
    features = plan.features
    parameters += 2 * features + features * data.outputs + data.outputs
    activations += features * (2 * sides[0] * sides[1] + 1) + data.outputs
    return parameters, activations, depth, sides[0] * sides[1]


def _after(sides: list[int], stride: int) -> list[int]:
    """Return the sides after a centred odd window with this stride."""
    return [(side - 1) // stride + 1 for side in sides]
