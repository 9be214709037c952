"""The forward pass that the gradient and all products share."""

import weakref
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from mlhf.curvature.errors import CurvatureError
from mlhf.curvature.kernels import working
from mlhf.curvature.switches import NOTHING, eager


def forward_pass(
    model: nn.Module,
    x: Any,
    parameters: Sequence[Tensor],
    autocast: torch.dtype | None,
    *,
    kernels: AbstractContextManager[Any],
) -> Any:
    """Return model(x) with its graph.

    Args:
        model: Any module.
        x: Its input.
        parameters: θ; autocast applies to their device.
        autocast: The dtype of autocast, or None to leave autocast as the caller has it.
        kernels: Within this the model runs (``Kernels``).

    Raises:
        CurvatureError: under ``torch.inference_mode``, which records no graph.
    """
    device = parameters[0].device.type
    cast = NOTHING if autocast is None else torch.autocast(device, dtype=autocast)
    with kernels, cast:
        return plain_forward_pass(model, x)


def plain_forward_pass(model: nn.Module, x: Any) -> Any:
    """Return model(x) with its graph, whose operations can be differentiated once.

    Raises:
        CurvatureError: as for ``forward_pass``.
    """
    if torch.is_inference_mode_enabled():
        raise CurvatureError(
            "torch.inference_mode() is on, under which no graph is recorded and parameters cannot "
            "be updated: leave it for steps and products (torch.no_grad() would do no harm)"
        )
    forget_casts()
    with torch.enable_grad(), eager():
        return model(usable(x))


def forget_casts() -> None:
    """Empty autocast's cache, which keeps casts of parameters until the caller leaves autocast.

    In a loop within ``torch.autocast`` they would be those of the first step for good. To be
    called after each update of parameters, and before each forward pass.
    """
    if torch.is_autocast_cache_enabled():
        torch.clear_autocast_cache()


def usable(x: Any) -> Any:
    """Return an input in a graph's reach: tensors made in ``inference_mode`` are copied."""
    if isinstance(x, Tensor):
        return x.clone() if x.is_inference() else x
    leaves = pytree.tree_leaves(x)
    if not any(isinstance(t, Tensor) and t.is_inference() for t in leaves):
        return x
    return pytree.tree_map(lambda t: usable(t) if isinstance(t, Tensor) else t, x)


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


class Unchanged:
    """Parameters at the values that a pass was run at.

    Products would use some of the new values, and some of the old ones that the graph saved.
    """

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        self._parameters = list(parameters)
        self._versions = [p._version for p in self._parameters]

    def check(self) -> None:
        """Raise CurvatureError where a parameter was written to since."""
        if [p._version for p in self._parameters] != self._versions:
            raise CurvatureError(
                "the parameters were changed since the forward pass, and products are of their "
                "values then: make a new matrix, or take all products before the update"
            )


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Turn off a caller's autocast for products: operations keep the dtypes of their inputs."""
    if not torch.is_autocast_enabled(device.type):
        return NOTHING
    return torch.autocast(device.type, enabled=False)


def evaluated(model: nn.Module, x: Any) -> Any:
    """Return model(x) without graph, also of a model that differentiates itself.

    One that calls ``torch.autograd.grad`` in its forward pass needs gradients enabled: it is run
    again with them, and remembered.
    """
    if model not in _NEED_GRADIENTS:
        try:
            with torch.no_grad(), eager(), working(model):
                return model(usable(x))
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
        _NEED_GRADIENTS.add(model)
    with torch.enable_grad(), eager(), working(model):
        return detached(model(usable(x)))


def detached(z: Any) -> Any:
    """Return a model's output (a tensor or a pytree of tensors) without its graph."""
    if isinstance(z, Tensor):
        return z.detach()
    return pytree.tree_map(lambda t: t.detach() if isinstance(t, Tensor) else t, z)


_NEED_GRADIENTS: weakref.WeakSet[nn.Module] = weakref.WeakSet()
