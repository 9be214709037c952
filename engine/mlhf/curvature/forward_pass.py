"""The forward pass that the gradient and all products share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError


def forward_pass(
    model: nn.Module, x: Any, parameters: Sequence[Tensor], low: torch.dtype | None
) -> Any:
    """Return model(x) with its graph, made of parts that can be differentiated twice.

    Args:
        model: Any module.
        x: Its input.
        parameters: What the graph is wanted for; they say on which device autocast works.
        low: Under autocast to this type, or None to leave autocast as the caller has it.
    """
    device = parameters[0].device.type
    cast = nullcontext() if low is None else torch.autocast(device, dtype=low)
    with torch.enable_grad(), differentiable_twice(model), cast:
        return model(x)


def trainable(model: nn.Module) -> list[Tensor]:
    """Return the model's parameters that require a gradient, each once."""
    found: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    if not found:
        raise CurvatureError("the model has no parameter that requires a gradient")
    return found


def select_parameters(model: nn.Module, parameters: Sequence[Tensor] | None) -> list[Tensor]:
    """Return the parameters a matrix is wanted for: those given, or all that are trained."""
    if parameters is None:
        return trainable(model)
    found = list(parameters)
    if not found:
        raise CurvatureError("no parameter was given")
    if len({id(p) for p in found}) < len(found):
        raise CurvatureError("a parameter was given twice")
    if any(not p.is_leaf or not p.requires_grad for p in found):
        raise CurvatureError("parameters must be leaves that require a gradient")
    return found


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Keep a caller's autocast out of products: each operation runs in its own types."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Keep fused kernels whose backward cannot be differentiated out of the forward pass.

    These are the fused recurrent layers (oneDNN, cuDNN) and fused attention. The encoder
    layers' fast path in eval mode is off wherever a gradient is wanted, by torch's own rule.
    """
    switches = list(_ATTENTION)
    if any(isinstance(m, nn.RNNBase) for m in model.modules()):
        switches += _RECURRENT
    before = [get() for get, _, _ in switches]
    for _, put, wanted in switches:
        put(wanted)
    try:
        yield
    finally:
        for (_, put, _), value in zip(switches, before, strict=True):
            put(value)


_C = torch._C
_Switch = tuple[Callable[[], bool], Callable[[bool], None], bool]  # get, set, wanted
# The setters below torch.backends: its context managers warn, and cost more than a small step.
_ATTENTION: tuple[_Switch, ...] = (
    (_C._get_flash_sdp_enabled, _C._set_sdp_use_flash, False),
    (_C._get_mem_efficient_sdp_enabled, _C._set_sdp_use_mem_efficient, False),
    (_C._get_cudnn_sdp_enabled, _C._set_sdp_use_cudnn, False),
    (_C._get_math_sdp_enabled, _C._set_sdp_use_math, True),
)
_RECURRENT: tuple[_Switch, ...] = (
    (_C._get_mkldnn_enabled, _C._set_mkldnn_enabled, False),
    (_C._get_cudnn_enabled, _C._set_cudnn_enabled, False),
)
