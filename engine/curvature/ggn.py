"""The generalized Gauss-Newton matrix of a network's loss on one batch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from engine.curvature.errors import CurvatureError
from engine.curvature.linearize import Linearization
from engine.curvature.losses import LossFunction, resolve

Loss = str | Callable[[Tensor, Tensor], Tensor]


class GGN:
    """G = Jᵀ H_ℓ J at the model's parameters, its loss and gradient, from one forward pass.

    J = ∂z/∂θ for the output z = model(x), H_ℓ = ∂²ℓ/∂z². The forward pass is run here, once,
    as in a plain training step: batch-norm statistics move once, dropout draws one mask, and
    every product uses what that pass saw. The parameters must not change while the object
    is used.

    Args:
        model: Any module that returns one tensor.
        loss: ``"cross_entropy"``, ``"mse"``, or a function (z, y) ↦ scalar that is twice
            differentiable in z.
        x: The model's input.
        y: The loss's target.
        parameters: θ; by default all that require a gradient.

    Attributes:
        loss: The mean loss, a scalar without graph.
        gradient: ∇θℓ, one tensor per parameter.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        x: Tensor,
        y: Tensor,
        parameters: Sequence[Tensor] | None = None,
    ) -> None:
        self.parameters = trainable(model) if parameters is None else list(parameters)
        function: LossFunction = resolve(loss)
        with torch.enable_grad(), differentiable_twice(model):
            z = model(x)
        if not isinstance(z, Tensor):
            raise CurvatureError(f"the model must return one tensor, not {type(z).__name__}")
        self._at = function(z, y)
        self._linear = Linearization(z, self.parameters)
        self.output = z.detach()
        self.loss = self._at.value
        self.gradient = self._linear.vjp(self._at.gradient)

    def product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return Gv, one tensor per parameter."""
        u = self._linear.jvp(v)  # v → Jv
        w = self._at.hessian_product(u)  # Jv → H_ℓ Jv
        return self._linear.vjp(w)  # H_ℓ Jv → Jᵀ H_ℓ Jv

    def quadratic(self, v: Sequence[Tensor]) -> Tensor:
        """Return vᵀGv, a scalar, for about half the cost of a product."""
        u = self._linear.jvp(v)
        return (u * self._at.hessian_product(u)).sum()


def trainable(model: nn.Module) -> list[Tensor]:
    """Return the model's parameters that require a gradient, each once."""
    found: list[Tensor] = [p for p in model.parameters() if p.requires_grad]
    if not found:
        raise CurvatureError("the model has no parameter that requires a gradient")
    return found


@contextmanager
def differentiable_twice(model: nn.Module) -> Iterator[None]:
    """Keep fused kernels whose backward cannot be differentiated out of the forward pass.

    These are the fused recurrent layers (oneDNN, cuDNN) and fused attention.
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
