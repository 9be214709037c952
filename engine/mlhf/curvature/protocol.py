"""The interface of curvature matrices, which optimizers use."""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

# A name, or a function (z, y) ↦ scalar; z is what the model returns.
Loss = str | Callable[[Any, Any], Tensor]


class Curvature(Protocol):
    """A symmetric matrix at a model's parameters, with the loss and its gradient there.

    Attributes:
        parameters: θ, the leaves it is taken at.
        loss: ℓ, a scalar without graph.
        gradient: ∇θℓ, one tensor like each parameter.
    """

    parameters: list[Tensor]
    loss: Tensor
    gradient: list[Tensor]

    def product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return the matrix times v, one tensor like each parameter; differentiable in v."""
        ...

    def quadratic(self, v: Sequence[Tensor]) -> Tensor:
        """Return vᵀ·matrix·v, a scalar without graph."""
        ...


class FactoredCurvature(Curvature, Protocol):
    """G = JᵀHJ by its factors: J of the outputs z, and H of the loss in them."""

    def jvps(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return Jv for each v, one tensor like each output."""
        ...

    def output_hessian(self, u: list[Tensor]) -> list[Tensor]:
        """Return Hu, one tensor like each output."""
        ...

    def vjp(self, w: Sequence[Tensor]) -> list[Tensor]:
        """Return Jᵀw, one tensor like each parameter."""
        ...


class CurvatureFactory(Protocol):
    """Makes the matrix of a model's loss on a batch: ``GGN``, ``Hessian``, ``EmpiricalFisher``."""

    def __call__(
        self,
        model: nn.Module,
        loss: Loss,
        x: Any,
        y: Any,
        parameters: Sequence[Tensor] | None = None,
        /,
        *,
        autocast: torch.dtype | None = None,
    ) -> Curvature: ...
