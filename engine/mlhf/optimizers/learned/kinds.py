"""Which of MLHF's six parameter kinds each parameter of a module is (paper, section 4)."""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd

KINDS = ("conv_kernel", "conv_bias", "dense_kernel", "dense_bias", "norm_gamma", "norm_beta")
_CONV_KERNEL, _CONV_BIAS, _DENSE_KERNEL, _DENSE_BIAS, _GAMMA, _BETA = range(6)

_NORMS = (_BatchNorm, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm, nn.modules.instancenorm._InstanceNorm)
_DENSE = (nn.Linear, nn.Bilinear, nn.Embedding, nn.EmbeddingBag, nn.RNNBase, nn.RNNCellBase)


@dataclass(frozen=True)
class Segment:
    """A run of neighbouring coordinates of one kind in the flat vector of parameters."""

    start: int
    end: int
    kind: int


def kind_of(module: nn.Module, name: str, parameter: Tensor) -> int:
    """Return a parameter's kind, an index into ``KINDS``.

    The paper's are convolution, dense and batch norm. Others map to the nearest: any other
    norm to batch norm; matrices of embeddings, recurrent layers and attention to dense
    kernels, their biases to dense biases. In modules of unknown type: by the number of
    dimensions (3 or more: convolution kernel; 2: dense kernel), vectors by their name
    (``weight``, ``gamma`` or ``scale``: gamma; anything else: dense bias).
    """
    is_bias = "bias" in name
    if isinstance(module, _ConvNd):
        return _CONV_BIAS if is_bias else _CONV_KERNEL
    if isinstance(module, _NORMS):
        return _BETA if is_bias else _GAMMA
    if isinstance(module, (*_DENSE, nn.MultiheadAttention)):
        return _DENSE_BIAS if is_bias else _DENSE_KERNEL
    if parameter.ndim >= 3:
        return _CONV_KERNEL
    if parameter.ndim == 2:
        return _DENSE_KERNEL
    is_scale = any(word in name for word in ("weight", "gamma", "scale"))
    return _GAMMA if is_scale else _DENSE_BIAS


def by_kind(model: nn.Module) -> tuple[list[nn.Parameter], list[Segment]]:
    """Return the trainable parameters grouped by kind, and each kind's segment.

    Within a kind the order is that of ``model.parameters()``; a shared parameter comes once,
    with the kind of the first module that has it. The segments are of the flat vector of these
    parameters, in this order.
    """
    pairs: list[tuple[int, nn.Parameter]] = []
    seen: set[int] = set()
    for module in model.modules():
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.requires_grad and id(parameter) not in seen:
                seen.add(id(parameter))
                pairs.append((kind_of(module, name, parameter), parameter))
    pairs.sort(key=lambda pair: pair[0])  # stable
    return [p for _, p in pairs], segments([(p.numel(), kind) for kind, p in pairs])


def segments(sizes: Sequence[tuple[int, int]]) -> list[Segment]:
    """Return the segments of (size, kind) pairs; neighbours of the same kind are merged."""
    merged: list[Segment] = []
    at = 0
    for size, kind in sizes:
        if merged and merged[-1].kind == kind:
            merged[-1] = Segment(merged[-1].start, at + size, kind)
        elif size:
            merged.append(Segment(at, at + size, kind))
        at += size
    return merged
