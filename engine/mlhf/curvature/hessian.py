"""The Hessian of a network's loss on one batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import get_gradient_edge

from mlhf.curvature.consistency import disagree, normal_like
from mlhf.curvature.errors import CurvatureError, explained
from mlhf.curvature.forward_pass import (
    Unchanged,
    detached,
    forward_pass,
    full_precision,
    select_parameters,
)
from mlhf.curvature.hooks import UNKNOWN, any_on, hook_count
from mlhf.curvature.kernels import Kernels
from mlhf.curvature.linearize import dense, refuse_reentrant, topological, vjp
from mlhf.curvature.protocol import Loss
from mlhf.curvature.pytree_loss import loss_of
from mlhf.curvature.symmetric import symmetric


class Hessian:
    """The Hessian H = ∂²ℓ/∂θ² of a loss at a model's parameters; and the loss and its gradient.

    Products differentiate the gradient: Hv = ∂⟨∇ℓ, v⟩/∂θ, a backward pass through a backward
    pass (Pearlmutter 1994). H is indefinite in general: conjugate gradients need a damping
    that exceeds the size of its most negative eigenvalue.

    Some operations have second derivatives that are silently wrong. Torch's ``weight_norm`` is
    one, and is refused. All others are checked before the first product: H must be symmetric
    on two random vectors, which costs two products. Hooks on gradients are refused.

    Args:
        model: Any module; its operations must be twice differentiable.
        loss: As for ``GGN``.
        x: The model's input.
        y: The loss's target.
        parameters: θ, by default all that require a gradient.
        autocast: As for ``GGN``.
        custom_functions: Whether the ``torch.autograd.Function``s in the model are known to
            have backwards that may be differentiated. Only their author can know: one that
            detaches something gives wrong products without an error. So they are refused by
            default.

    Attributes:
        loss: ℓ(z, y), a scalar without graph.
        gradient: ∇θℓ, one tensor like each parameter.
        output: What the model returned, without graph.

    Raises:
        CurvatureError: where products cannot be computed correctly.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss,
        x: Any,
        y: Any,
        parameters: Sequence[Tensor] | None = None,
        *,
        autocast: torch.dtype | None = None,
        custom_functions: bool = False,
    ) -> None:
        self.parameters = select_parameters(model, parameters)
        self._device = self.parameters[0].device
        before = hook_count()
        z = forward_pass(model, x, self.parameters, autocast, kernels=Kernels.of(model).twice())
        self.output: Any = detached(z)
        with torch.enable_grad(), full_precision(self._device):
            value = loss_of(loss, z, y)
            if not value.requires_grad:
                raise CurvatureError("the loss does not depend on any parameter by a graph")
            if hook_count() != before or any_on(self.parameters):
                raise CurvatureError(UNKNOWN)
            _refuse_unsafe_nodes(value, custom_functions)
            with explained():
                found = torch.autograd.grad(
                    *(value, self.parameters),
                    create_graph=True,
                    allow_unused=True,
                )
            refuse_reentrant(found, [value])
            self._graph = dense(found, self.parameters)
        self._unchanged = Unchanged(self.parameters)
        self._checked = False
        self.loss = value.detach()
        self.gradient = [g.detach() for g in self._graph]

    def product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return Hv.

        Args:
            v: One tensor like each parameter.

        Returns:
            One tensor like each parameter; differentiable in v, with H a constant.
        """
        return symmetric(self._product, v)

    def quadratic(self, v: Sequence[Tensor]) -> Tensor:
        """Return vᵀHv, a scalar without graph."""
        with torch.no_grad():
            hv = self._product(v)
            return torch.stack([(a * b).sum() for a, b in zip(v, hv, strict=True)]).sum()

    def _product(self, v: Sequence[Tensor]) -> list[Tensor]:
        self._unchanged.check()
        if not self._checked:
            self._check_symmetry()
            self._checked = True
        return self._differentiate_gradient(v)

    def _differentiate_gradient(self, v: Sequence[Tensor]) -> list[Tensor]:
        # A gradient without graph is constant in θ: its row of H is zero.
        pairs = [(g, t) for g, t in zip(self._graph, v, strict=True) if g.requires_grad]
        if not pairs:
            return [torch.zeros_like(p) for p in self.parameters]
        with full_precision(self._device):
            try:
                return vjp([g for g, _ in pairs], self.parameters, [t for _, t in pairs])
            except CurvatureError:
                raise
            except RuntimeError as error:
                raise CurvatureError(f"no second derivative: {error}") from error

    def _check_symmetry(self) -> None:
        """Raise CurvatureError unless ⟨u, Hv⟩ = ⟨v, Hu⟩ for random u and v."""
        ends = [get_gradient_edge(g).node for g in self._graph if g.requires_grad]
        if not ends:
            return
        nodes = topological(ends)
        if any(node.name() == "torch::autograd::Error" for node in nodes):
            # Torch raises this error only where the node is on the way to a parameter.
            raise CurvatureError("no second derivative: a function is once differentiable")
        u, v = normal_like(self.parameters, 0), normal_like(self.parameters, 1)
        hu, hv = self._differentiate_gradient(u), self._differentiate_gradient(v)
        if disagree(list(zip(u, hv, strict=True)), list(zip(v, hu, strict=True)), nodes):
            raise CurvatureError(
                "this network's second derivative is not symmetric, so a product would be "
                "wrong: one of its functions has a backward that is wrong to differentiate"
            )


# Nodes whose backward is wrong to differentiate: this one takes the norm for a constant.
_WRONG = {"WeightNormInterfaceBackward0": "weight_norm"}


def _refuse_unsafe_nodes(value: Tensor, custom_functions: bool) -> None:
    for node in topological([get_gradient_edge(value).node]):
        name = node.name()
        if name in _WRONG:
            raise CurvatureError(f"torch's second derivative of {_WRONG[name]} is wrong")
        if custom_functions or callable(node) or name == "torch::autograd::AccumulateGrad":
            continue
        raise CurvatureError(
            f"{name} is a custom autograd function, which may hide second derivatives: say "
            "custom_functions=True if its backward may be differentiated"
        )
