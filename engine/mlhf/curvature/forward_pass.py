"""The forward pass that the gradient and all products share."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mlhf.curvature.errors import CurvatureError


def forward_pass(
    model: nn.Module, x: Any, parameters: Sequence[Tensor], autocast: torch.dtype | None
) -> Any:
    """Return model(x) with its graph, whose operations can be differentiated twice.

    Args:
        model: Any module.
        x: Its input.
        parameters: θ; autocast applies to their device.
        autocast: The dtype of autocast, or None to leave autocast as the caller has it.
    """
    device = parameters[0].device.type
    cast = nullcontext() if autocast is None else torch.autocast(device, dtype=autocast)
    with torch.enable_grad(), differentiable_twice(model), cast:
        return model(x)


def trainable(model: nn.Module) -> list[Tensor]:
    """Return the model's parameters that require a gradient, each once.

    Raises:
        CurvatureError: where there is none.
    """
    found: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    if not found:
        raise CurvatureError("the model has no parameter that requires a gradient")
    return found


def select_parameters(model: nn.Module, parameters: Sequence[Tensor] | None) -> list[Tensor]:
    """Return the parameters a matrix is taken at: those given, or all that are trained.

    Raises:
        CurvatureError: where there is none, one is given twice, or one is not a leaf that
            requires a gradient.
    """
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
    """Turn off a caller's autocast for products: operations keep the dtypes of their inputs."""
    if not torch.is_autocast_enabled(device.type):
        yield
        return
    with torch.autocast(device.type, enabled=False):
        yield


@contextmanager
def differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Turn off fused kernels whose backward cannot be differentiated.

    These are fused recurrent layers (oneDNN, cuDNN) and fused attention. Torch itself turns
    off the fast path of encoder layers in eval mode wherever a gradient is needed.
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
# The setters that torch.backends uses: its context managers warn, and cost more than a small
# training step.
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
