"""The torch module of each layer of a planned network. Nothing works in place.

Forward-mode differentiation goes through these modules, so they keep to plain functions of
their inputs and parameters.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mlhf.models import layer_specs as spec
from mlhf.models.shapes import Planned

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "elu": nn.ELU,
    "selu": nn.SELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid,
    "softplus": nn.Softplus,
}


class GlobalAvgPool(nn.Module):
    """(B, C, H, W) → (B, C)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


class ImageRows(nn.Module):
    """(B, C, H, W) → (B, H, C·W)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).flatten(2)


class LastStep(nn.Module):
    """(B, T, F) → (B, F)."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, -1]


class MeanOverTime(nn.Module):
    """(B, T, F) → (B, F)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


class CausalConv1d(nn.Module):
    """(B, T, F) → (B, T, channels); step t sees steps up to t."""

    def __init__(self, features: int, layer: spec.CausalConv1d) -> None:
        super().__init__()
        self.before = (layer.kernel_size - 1) * layer.dilation
        self.conv = nn.Conv1d(
            features,
            layer.out_channels,
            layer.kernel_size,
            dilation=layer.dilation,
            bias=layer.bias,
        )

    def forward(self, x: Tensor) -> Tensor:
        padded = nn.functional.pad(x.transpose(1, 2), (self.before, 0))
        result: Tensor = self.conv(padded)
        return result.transpose(1, 2)


class Recurrent(nn.Module):
    """(B, T, F) → (B, T, hidden): the outputs of an LSTM or GRU that starts at zero."""

    def __init__(self, features: int, layer: spec.Lstm | spec.Gru) -> None:
        super().__init__()
        kind = nn.LSTM if isinstance(layer, spec.Lstm) else nn.GRU
        self.rnn = kind(features, layer.hidden_size, layer.num_layers, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        outputs: Tensor = self.rnn(x)[0]
        return outputs


class GroupNorm(nn.GroupNorm):
    """Group norm that takes one sample too where a group is a single value.

    Such a value is its own mean: the result is the bias, whatever the batch. The functional
    form refuses batches of one there.
    """

    def forward(self, x: Tensor) -> Tensor:
        return torch.group_norm(x, self.num_groups, self.weight, self.bias, self.eps)


class PositionEmbedding(nn.Module):
    """(B, T, F) → (B, T, F): x plus a learned vector for each of the T places."""

    def __init__(self, steps: int, features: int) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.empty(steps, features))
        nn.init.normal_(self.vectors, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.vectors


class CausalAttention(nn.Module):
    """(B, T, F) → (B, T, F): attention of F // heads features a head, to earlier steps only."""

    def __init__(self, features: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.inputs = nn.Linear(features, 3 * features)
        self.mix = nn.Linear(features, features)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.inputs(x).unflatten(2, (3, self.heads, -1))  # (B, T, 3, heads, F // heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        seen = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        result: Tensor = self.mix(seen.transpose(1, 2).flatten(2))
        return result


class Residual(nn.Module):
    """x → body(x) + shortcut(x)."""

    def __init__(self, body: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.body(x) + self.shortcut(x)
        return result


def sequential(planned: Sequence[Planned]) -> nn.Sequential:
    """Return the planned layers one after the other."""
    return nn.Sequential(*(module(each) for each in planned))


def module(planned: Planned) -> nn.Module:
    """Return the module of one planned layer."""
    source, result = planned.source.sizes, planned.result.sizes
    match planned.layer:
        case spec.Linear() as layer:
            return nn.Linear(source[-1], result[-1], bias=layer.bias)
        case spec.Conv2d() as layer:
            return nn.Conv2d(
                source[0],
                layer.out_channels,
                layer.kernel_size,
                stride=layer.stride,
                padding=layer.padding,
                groups=layer.groups,
                bias=layer.bias,
            )
        case spec.CausalConv1d() as layer:
            return CausalConv1d(source[1], layer)
        case spec.MaxPool2d() as layer:
            return nn.MaxPool2d(layer.kernel_size, layer.stride, layer.padding)
        case spec.AvgPool2d() as layer:
            return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding)
        case spec.BatchNorm() as layer:
            norm = nn.BatchNorm2d if len(source) == 3 else nn.BatchNorm1d
            return norm(source[0], eps=layer.eps, momentum=layer.momentum)
        case spec.LayerNorm() as layer:
            return nn.LayerNorm(source[1:] if len(source) == 2 else source, eps=layer.eps)
        case spec.GroupNorm() as layer:
            return GroupNorm(layer.groups, source[0], eps=layer.eps)
        case spec.Embedding() as layer:
            return nn.Embedding(planned.parameters // layer.dimension, layer.dimension)
        case spec.Lstm() | spec.Gru() as layer:
            return Recurrent(source[1], layer)
        case spec.PositionEmbedding():
            return PositionEmbedding(*source)
        case spec.CausalAttention() as layer:
            return CausalAttention(source[1], layer.heads)
        case spec.Residual():
            return Residual(sequential(planned.inner), _shortcut(planned))
        case spec.Activation() as layer:
            return ACTIVATIONS[layer.function]()
        case spec.Dropout() as layer:
            return nn.Dropout(layer.p)
        case spec.Flatten():
            return nn.Flatten()
        case spec.GlobalAvgPool():
            return GlobalAvgPool()
        case spec.ImageRows():
            return ImageRows()
        case spec.LastStep():
            return LastStep()
        case spec.MeanOverTime():
            return MeanOverTime()


def _shortcut(planned: Planned) -> nn.Module:
    source, result, stride = planned.source.sizes, planned.result.sizes, planned.projection
    if stride is None:
        return nn.Identity()
    if len(source) == 3:
        return nn.Conv2d(source[0], result[0], 1, stride=stride, bias=False)
    return nn.Linear(source[-1], result[-1], bias=False)
