"""The Gauss-Newton matrix of several passes: those of the microbatches of one step."""

from collections.abc import Sequence
from itertools import islice

import torch
from torch import Tensor

from mlhf.curvature.ggn import GGN


class WeightedSum:
    """Σᵢ wᵢGᵢ, with the loss Σᵢ wᵢℓᵢ.

    Its outputs are those of all passes, one after the other.

    Args:
        matrices: G₁ … G_m, at the same parameters.
        weights: w₁ … w_m.
        gradient: The gradient to step by, one tensor like each parameter.

    Attributes:
        parameters: θ.
        loss: A scalar without graph.
        gradient: As given.
        total: Σᵢ wᵢ: 1 for a mean of the passes, or what the loss is a multiple of a mean by.
    """

    def __init__(
        self, matrices: Sequence[GGN], weights: Sequence[float], gradient: list[Tensor]
    ) -> None:
        self._matrices, self._weights = list(matrices), list(weights)
        self.parameters = matrices[0].parameters
        self.gradient = gradient
        self.total = sum(self._weights)
        first, *others = (_times(m.loss, w) for m, w in zip(matrices, weights, strict=True))
        self.loss = torch.stack([first, *others]).sum() if others else first

    def product(self, v: Sequence[Tensor]) -> list[Tensor]:
        """Return Gv, one tensor like each parameter."""
        return self._sum([m.product(v) for m in self._matrices], self._weights)

    def quadratic(self, v: Sequence[Tensor]) -> Tensor:
        """Return vᵀGv, a scalar without graph."""
        found = [m.quadratic(v) for m in self._matrices]
        return self._sum([[q] for q in found], self._weights)[0]

    def jvps(self, vs: Sequence[Sequence[Tensor]]) -> list[list[Tensor]]:
        """Return Jv for each v, one tensor like each output of each pass."""
        by_pass = [m.jvps(vs) for m in self._matrices]
        return [[t for us in by_pass for t in us[k]] for k in range(len(vs))]

    def output_hessian(self, u: list[Tensor]) -> list[Tensor]:
        """Return Hu with the passes' weights."""
        result = []
        for matrix, own, weight in self._parts(u):
            result += [_times(t, weight) for t in matrix.output_hessian(own)]
        return result

    def vjp(self, w: Sequence[Tensor]) -> list[Tensor]:
        """Return Jᵀw, one tensor like each parameter."""
        found = [matrix.vjp(own) for matrix, own, _ in self._parts(w)]
        return self._sum(found, [1.0] * len(found))

    def _parts(self, u: Sequence[Tensor]) -> list[tuple[GGN, list[Tensor], float]]:
        """Return each pass with its own outputs' tensors, and its weight."""
        rest = iter(u)
        return [
            (matrix, list(islice(rest, len(matrix.outputs))), weight)
            for matrix, weight in zip(self._matrices, self._weights, strict=True)
        ]

    def _sum(self, found: Sequence[list[Tensor]], weights: Sequence[float]) -> list[Tensor]:
        first, *others = found
        total = [_times(t, weights[0]) for t in first]
        for each, weight in zip(others, weights[1:], strict=True):
            total = list(torch._foreach_add(total, each, alpha=weight))
        return total


def _times(t: Tensor, weight: float) -> Tensor:
    return t if weight == 1 else t * weight
